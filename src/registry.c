/* The list of backend modules, made once per process. */
#include "src/internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct {
    pthread_once_t once;
    rfa_module *modules;
    size_t count, capacity;
} registry = {.once = PTHREAD_ONCE_INIT};

/* What the library prefers where the caller does not choose. */
static const char *const preference[] = {"cuda", "hip", "opencl", "cpu", "reference"};

static int rank_of(const rfa_module *module)
{
    int ranks = (int)(sizeof(preference) / sizeof(preference[0]));
    if (!module->backend)
        return ranks + 1;
    for (int i = 0; i < ranks; i++)
        if (strcmp(module->name, preference[i]) == 0)
            return i;
    return ranks;
}

static int compare_modules(const void *a, const void *b)
{
    const rfa_module *x = a, *y = b;
    int order = rank_of(x) - rank_of(y);
    if (order != 0)
        return order;
    order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->path, y->path);
}

static bool make_room(void)
{
    if (registry.count < registry.capacity)
        return true;
    size_t capacity = registry.capacity ? 2 * registry.capacity : 8;
    rfa_module *grown = realloc(registry.modules, capacity * sizeof(*grown));
    if (!grown)
        return false;
    registry.modules = grown;
    registry.capacity = capacity;
    return true;
}

/* Out of memory here leaves the module out: nothing could be said about it. */
static void add(const char *name, const char *path, rfa_status status, const char *why,
                const rfa_backend *backend)
{
    rfa_module module = {strdup(name), strdup(path), status, strdup(why), backend};
    if (module.name && module.path && module.why && make_room()) {
        registry.modules[registry.count++] = module;
        return;
    }
    free(module.name);
    free(module.path);
    free(module.why);
}

static const rfa_module *find(const char *name)
{
    for (size_t i = 0; i < registry.count; i++)
        if (registry.modules[i].backend && strcmp(registry.modules[i].name, name) == 0)
            return &registry.modules[i];
    return NULL;
}

static void add_file(const char *folder, const char *file)
{
    rfa_error err = {""};
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, file) < 0)
        return;
    const rfa_backend *backend = NULL;
    rfa_status status = rfa_module_load(path, &backend, &err);
    const rfa_module *earlier = backend ? find(backend->name) : NULL;
    if (earlier) {
        status = rfa_fail(&err, RFA_UNSUPPORTED, "backend %s was already loaded from %s",
                          backend->name, earlier->path);
        backend = NULL;
    }
    add(backend ? backend->name : file, path, status, err.text, backend);
    free(path);
}

static int is_module(const struct dirent *entry)
{
    static const char head[] = "rfa_backend_", tail[] = ".so";
    size_t length = strlen(entry->d_name);
    return length > sizeof(head) + sizeof(tail) - 2 &&
           strncmp(entry->d_name, head, sizeof(head) - 1) == 0 &&
           strcmp(entry->d_name + length - (sizeof(tail) - 1), tail) == 0;
}

/* `asked`: somebody named this folder, so its absence is worth a line. */
static void add_folder(const char *folder, bool asked)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_module, alphasort);
    if (count < 0) {
        rfa_error err;
        if (asked) {
            rfa_fail(&err, RFA_IO_ERROR, "the folder named by RFA_BACKEND_PATH cannot be read: %s",
                     strerror(errno));
            add(folder, folder, RFA_IO_ERROR, err.text, NULL);
        }
        return;
    }
    for (int i = 0; i < count; i++) {
        add_file(folder, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}

static bool same_folder(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The folder that holds librfa; NULL when the loader does not know it. */
static char *library_folder(void)
{
    Dl_info info;
    if (!dladdr((const void *)&registry, &info) || !info.dli_fname)
        return NULL;
    char *path = realpath(info.dli_fname, NULL);
    char *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        *slash = '\0';
    return path;
}

static void add_environment_folder(void)
{
    /* A program that runs with raised rights takes no modules from its caller. */
    const char *asked = secure_getenv("RFA_BACKEND_PATH");
    if (!asked)
        return;
    if (asked[0] == '/')
        add_folder(asked, true);
    else
        add(asked, asked, RFA_INVALID_ARGUMENT, "RFA_BACKEND_PATH must be an absolute path", NULL);
}

static void load_all(void)
{
    add_environment_folder();
    char *beside = library_folder(), *inside = NULL;
    if (beside) {
        add_folder(beside, false);
        if (asprintf(&inside, "%s/rfa", beside) < 0)
            inside = NULL;
        if (inside)
            add_folder(inside, false);
    }
    if (!(inside && same_folder(inside, RFA_MODULE_DIR)))
        add_folder(RFA_MODULE_DIR, false);
    free(inside);
    free(beside);
    if (registry.count > 0)
        qsort(registry.modules, registry.count, sizeof(registry.modules[0]), compare_modules);
}

const rfa_module *rfa_modules(size_t *count)
{
    pthread_once(&registry.once, load_all);
    *count = registry.count;
    return registry.modules;
}

rfa_status rfa_find_backend(const char *name, const rfa_backend **backend, rfa_error *err)
{
    size_t count;
    rfa_modules(&count);
    const rfa_module *module = find(name);
    if (!module)
        return rfa_fail(err, RFA_NO_DEVICE,
                        "there is no backend named %s (`rfa devices` lists what was found)", name);
    *backend = module->backend;
    return RFA_OK;
}

size_t rfa_backend_count(void)
{
    size_t count;
    rfa_modules(&count);
    return count;
}

rfa_status rfa_backend_get(size_t index, rfa_backend_info *info)
{
    rfa_error err;
    size_t count;
    const rfa_module *modules = rfa_modules(&count);
    if (!info)
        return rfa_record(NULL, rfa_fail(&err, RFA_INVALID_ARGUMENT, "info is NULL"), &err);
    if (index >= count)
        return rfa_record(NULL,
                          rfa_fail(&err, RFA_INVALID_ARGUMENT,
                                   "backend %zu was asked for, there are %zu", index, count),
                          &err);
    const rfa_module *module = &modules[index];
    *info = (rfa_backend_info){module->name, module->path, module->status, module->why};
    return RFA_OK;
}
