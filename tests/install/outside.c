/* A program outside the tree, in C and in C++: prints the path of every usable
 * module, a line each. */
#include <rfa/rfa.h>
#include <stdio.h>

int main(void)
{
    rfa_backend_info info;
    rfa_context *ctx = NULL;
    for (size_t i = 0; i < rfa_backend_count(); i++)
        if (rfa_backend_get(i, &info) == RFA_OK && info.status == RFA_OK)
            printf("%s\n", info.path);
    if (rfa_context_create(&ctx, NULL) != RFA_OK) {
        fprintf(stderr, "%s\n", rfa_last_error(NULL));
        return 1;
    }
    rfa_context_destroy(ctx);
    return 0;
}
