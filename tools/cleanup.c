/* The handler touches only what is async-signal-safe: atomics, unlink, raise. */
#include "tools/cleanup.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 8

enum { FREE, FILLING, ARMED };

static atomic_int slot_state[SLOTS];
static char slot_path[SLOTS][PATH_MAX];

static void on_signal(int number)
{
    for (int i = 0; i < SLOTS; i++)
        if (atomic_load(&slot_state[i]) == ARMED)
            unlink(slot_path[i]);
    /* SA_RESETHAND has put the default action back: die of it, as a shell expects. */
    raise(number);
}

void cleanup_install(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    struct sigaction action, old;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
}

bool cleanup_register(const char *path)
{
    size_t length = strlen(path);
    if (length >= PATH_MAX)
        return false;
    for (int i = 0; i < SLOTS; i++) {
        int expected = FREE;
        if (!atomic_compare_exchange_strong(&slot_state[i], &expected, FILLING))
            continue;
        memcpy(slot_path[i], path, length + 1);
        atomic_store(&slot_state[i], ARMED);
        return true;
    }
    return false;
}

void cleanup_forget(const char *path)
{
    for (int i = 0; i < SLOTS; i++)
        if (atomic_load(&slot_state[i]) == ARMED && !strcmp(slot_path[i], path))
            atomic_store(&slot_state[i], FREE);
}
