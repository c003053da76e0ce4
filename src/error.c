/* Where the sentences of failed calls are kept. */
#include "src/internal.h"

static _Thread_local rfa_error thread_error;

rfa_status rfa_record(rfa_context *ctx, rfa_status status, const rfa_error *err)
{
    if (status == RFA_OK)
        return status;
    thread_error = *err;
    if (!err->text[0])
        rfa_fail(&thread_error, status, "%s, and the backend does not say why",
                 rfa_status_name(status));
    if (ctx)
        ctx->error = thread_error;
    return status;
}

const char *rfa_last_error(const rfa_context *ctx)
{
    return ctx ? ctx->error.text : thread_error.text;
}
