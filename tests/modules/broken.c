/* Backend modules that are each broken in one way, chosen by a BROKEN_* macro. */
#include "tests/modules/whole.h"

#if defined(BROKEN_SYMBOL)
#define ENTRY rfa_backend_entrance
const rfa_backend *rfa_backend_entrance(void);
#else
#define ENTRY rfa_backend_entry
#endif

MODULE_EXPORT const rfa_backend *ENTRY(void)
{
    static rfa_backend table = WHOLE_TABLE(MODULE_NAME);
#if defined(BROKEN_NULL)
    return NULL;
#elif defined(BROKEN_ABI)
    table.abi = RFA_BACKEND_ABI + 1;
#elif defined(BROKEN_SIZE)
    table.struct_size -= (uint32_t)sizeof(void *);
#elif defined(BROKEN_SLOT)
    table.merge = NULL;
#elif defined(BROKEN_REFERENCE)
    extern int rfa_a_driver_that_nobody_has(void);
    table.abi += (uint32_t)rfa_a_driver_that_nobody_has();
#endif
    return &table;
}
