/* rfa: recall-targeted sparse flash attention. Includes the whole API. */
#ifndef RFA_RFA_H
#define RFA_RFA_H

#include <rfa/attention.h>
#include <rfa/base.h>
#include <rfa/device.h>

#endif
