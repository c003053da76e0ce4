/* The initialisers and calls as a program would use them, in C and in C++. */
#include <rfa/rfa.h>

int main(void)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    rfa_attention_args args = RFA_ATTENTION_ARGS_INIT;
    rfa_merge_args merge = RFA_MERGE_ARGS_INIT;
    rfa_context *ctx = 0;
    char why[64];
    if (options.struct_size != sizeof(options) || args.struct_size != sizeof(args) ||
        merge.struct_size != sizeof(merge) || args.q || args.knob != 0 || merge.parts != 0)
        return 1;
    options.backend = "cpu";
    if (rfa_context_create(&ctx, &options) != RFA_OK)
        return 2;
    if (rfa_supports(ctx, &args, why, sizeof(why)) != RFA_INVALID_ARGUMENT ||
        rfa_attention(ctx, &args) != RFA_INVALID_ARGUMENT ||
        rfa_merge(ctx, &merge) != RFA_INVALID_ARGUMENT)
        return 3;
    rfa_context_destroy(ctx);
    return 0;
}
