/* Names of statuses and the version. */
#include <rfa/base.h>

#define STRING(x) #x
#define VERSION_STRING(a, b, c) STRING(a) "." STRING(b) "." STRING(c)

const char *rfa_status_name(rfa_status status)
{
    switch (status) {
    case RFA_OK: return "ok";
    case RFA_INVALID_ARGUMENT: return "invalid argument";
    case RFA_UNSUPPORTED: return "unsupported";
    case RFA_OUT_OF_MEMORY: return "out of memory";
    case RFA_NO_DEVICE: return "no device";
    case RFA_DEVICE_ERROR: return "device error";
    case RFA_IO_ERROR: return "i/o error";
    }
    return "unknown status";
}

const char *rfa_version(void)
{
    return VERSION_STRING(RFA_VERSION_MAJOR, RFA_VERSION_MINOR, RFA_VERSION_PATCH);
}
