/* Runs a fuzz target over files, for compilers without libFuzzer: the corpus is
 * a test everywhere. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fuzz/bytes.h"

static int run_file(const char *path)
{
    enum { MOST = 1 << 20 };
    static uint8_t data[MOST];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    size_t size = fread(data, 1, sizeof(data), file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    return 0;
}

static int run_folder(const char *folder, int *count)
{
    struct dirent **entries;
    int found = scandir(folder, &entries, NULL, alphasort), failed = 0;
    if (found < 0) {
        perror(folder);
        return 1;
    }
    for (int i = 0; i < found; i++) {
        char path[4096];
        struct stat info;
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        free(entries[i]);
        if (stat(path, &info) != 0 || !S_ISREG(info.st_mode))
            continue;
        failed |= run_file(path);
        ++*count;
    }
    free(entries);
    return failed;
}

int main(int argc, char **argv)
{
    int count = 0, failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run_folder(argv[i], &count);
    printf("%d inputs ran\n", count);
    return failed || count == 0;
}
