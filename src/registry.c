/* The list of backend modules, made once per process. */
#include "src/internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct {
    pthread_mutex_t lock; /* while it is made; afterwards nothing changes */
    bool made;
    bool starved; /* memory ran out: what is there is not the whole list */
    rfa_module *modules;
    size_t count, capacity;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

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

static void free_module(const rfa_module *module)
{
    free(module->name);
    free(module->path);
    free(module->why);
}

static void add(const char *name, const char *path, rfa_status status, const char *why,
                const rfa_backend *backend)
{
    rfa_module module = {strdup(name), strdup(path), status, strdup(why), backend};
    if (module.name && module.path && module.why && make_room()) {
        registry.modules[registry.count++] = module;
        return;
    }
    free_module(&module);
    registry.starved = true;
}

static const rfa_module *find(const char *name)
{
    for (size_t i = 0; i < registry.count; i++)
        if (registry.modules[i].backend && strcmp(registry.modules[i].name, name) == 0)
            return &registry.modules[i];
    return NULL;
}

/* One folder may be named and be beside the library too. */
static bool is_known(const char *path)
{
    for (size_t i = 0; i < registry.count; i++)
        if (strcmp(registry.modules[i].path, path) == 0)
            return true;
    return false;
}

static void add_file(const char *folder, const char *file)
{
    rfa_error err = {""};
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, file) < 0) {
        registry.starved = true;
        return;
    }
    if (is_known(path)) {
        free(path);
        return;
    }
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

/* `asked`: somebody named this folder, so its absence is worth a line. Answers
 * whether it holds modules, usable or not. */
static bool add_folder(const char *folder, bool asked)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_module, alphasort);
    if (count < 0) {
        rfa_error err;
        if (errno == ENOMEM) {
            registry.starved = true;
        } else if (asked) {
            rfa_fail(&err, RFA_IO_ERROR, "the folder named by RFA_BACKEND_PATH cannot be read: %s",
                     strerror(errno));
            add(folder, folder, RFA_IO_ERROR, err.text, NULL);
        }
        return false;
    }
    for (int i = 0; i < count; i++) {
        add_file(folder, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return count > 0;
}

/* The folder that holds librfa; NULL when the loader does not know it. */
static char *library_folder(void)
{
    Dl_info info;
    if (!dladdr((const void *)&registry, &info) || !info.dli_fname)
        return NULL;
    /* Linked into a program, the name is argv[0], which a shell found in PATH. */
    bool in_path = !strchr(info.dli_fname, '/');
    char *path = realpath(in_path ? "/proc/self/exe" : info.dli_fname, NULL);
    registry.starved |= !path && errno == ENOMEM;
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
    bool found = false;
    char *beside = library_folder(), *inside = NULL;
    if (beside) {
        found = add_folder(beside, false);
        if (asprintf(&inside, "%s/rfa", beside) < 0) {
            inside = NULL;
            registry.starved = true;
        } else {
            found |= add_folder(inside, false);
        }
    }
    free(inside);
    free(beside);
    /* A build folder or a moved tree has its own: those of another build stay out. */
    if (!found)
        add_folder(RFA_MODULE_DIR, false);
    if (registry.count > 0)
        qsort(registry.modules, registry.count, sizeof(registry.modules[0]), compare_modules);
}

static void drop_all(void)
{
    for (size_t i = 0; i < registry.count; i++)
        free_module(&registry.modules[i]);
    free(registry.modules);
    registry.modules = NULL;
    registry.count = registry.capacity = 0;
}

/* A list that is not whole is not kept, so that the next call makes another. */
rfa_status rfa_modules(const rfa_module **modules, size_t *count, rfa_error *err)
{
    pthread_mutex_lock(&registry.lock);
    if (!registry.made) {
        registry.starved = false;
        load_all();
        registry.made = !registry.starved;
        if (registry.starved)
            drop_all();
    }
    bool made = registry.made;
    *modules = registry.modules;
    *count = registry.count;
    pthread_mutex_unlock(&registry.lock);
    return made ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the list of backends");
}

/* Memory may have run out in the loader too; then nobody knows what the module's
 * backend is named. */
static const rfa_module *find_starved(void)
{
    for (size_t i = 0; i < registry.count; i++)
        if (registry.modules[i].status == RFA_OUT_OF_MEMORY)
            return &registry.modules[i];
    return NULL;
}

rfa_status rfa_find_backend(const char *name, const rfa_backend **backend, rfa_error *err)
{
    size_t count;
    const rfa_module *modules;
    rfa_status status = rfa_modules(&modules, &count, err);
    if (status != RFA_OK)
        return status;
    const rfa_module *module = find(name), *starved = find_starved();
    if (!module && starved)
        return rfa_fail(err, RFA_OUT_OF_MEMORY,
                        "there is no backend named %s, and memory ran out in loading %s", name,
                        starved->path);
    if (!module)
        return rfa_fail(err, RFA_NO_DEVICE,
                        "there is no backend named %s (`rfa devices` lists what was found)", name);
    *backend = module->backend;
    return RFA_OK;
}

size_t rfa_backend_count(void)
{
    rfa_error err;
    size_t count;
    const rfa_module *modules;
    rfa_record(NULL, rfa_modules(&modules, &count, &err), &err);
    return count;
}

rfa_status rfa_backend_get(size_t index, rfa_backend_info *info)
{
    rfa_error err;
    size_t count;
    const rfa_module *modules;
    if (!info)
        return rfa_record(NULL, rfa_fail(&err, RFA_INVALID_ARGUMENT, "info is NULL"), &err);
    rfa_status status = rfa_modules(&modules, &count, &err);
    if (status != RFA_OK)
        return rfa_record(NULL, status, &err);
    if (index >= count)
        return rfa_record(NULL,
                          rfa_fail(&err, RFA_INVALID_ARGUMENT,
                                   "backend %zu was asked for, there are %zu", index, count),
                          &err);
    const rfa_module *module = &modules[index];
    *info = (rfa_backend_info){module->name, module->path, module->status, module->why};
    return RFA_OK;
}
