/* Where the sentences of failed calls are kept. */
#include "src/internal.h"

static _Thread_local rfa_error thread_error;

rfa_status rfa_record(rfa_context *ctx, rfa_status status, const rfa_error *err)
{
    if (status == RFA_OK)
        return status;
    if (ctx)
        ctx->error = *err;
    thread_error = *err;
    return status;
}

const char *rfa_last_error(const rfa_context *ctx)
{
    return ctx ? ctx->error.text : thread_error.text;
}
