/* Temporary files that a signal must not leave behind. */
#ifndef RFA_TOOLS_CLEANUP_H
#define RFA_TOOLS_CLEANUP_H

#include <stdbool.h>

/* On SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGPIPE, unless ignored so far:
 * unlinks what is registered and dies of the signal. Ignores SIGXFSZ, so that
 * the file size limit is an error of write. Call once, before any threads. */
void cleanup_install(void);

/* Registers a path to unlink (copied); false if it is too long or there are too
 * many. Register before creating the file, so that no moment is left open. */
bool cleanup_register(const char *path);
void cleanup_forget(const char *path);

#endif
