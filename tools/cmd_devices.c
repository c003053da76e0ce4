/* rfa devices: every backend and device, usable or why not. */
#include <stdio.h>
#include <string.h>

#include <rfa/rfa.h>

#include "tools/cli.h"
#include "tools/device_tensor.h"
#include "tools/json.h"

#define NAME "rfa devices"

static const char about[] =
    "Lists every backend that this installation has, and every device that it sees. What cannot "
    "be used is listed with its reason. The word before a device is what the other commands take: "
    "cuda:1 is --backend cuda --device 1.";

static const char examples[] = "rfa devices\n"
                               "rfa devices --json";

static const char *reason(const char *why, rfa_status status)
{
    return why && why[0] ? why : rfa_status_name(status);
}

/* ---- Text --------------------------------------------------------------------------- */

static void print_device(const char *backend, int32_t index)
{
    char label[64], memory[32];
    rfa_device_info info;
    snprintf(label, sizeof(label), "%s:%d", backend, (int)index);
    rfa_status status = rfa_device_get(backend, index, &info);
    if (status) {
        printf("%-14s not usable: %s\n", label, reason(rfa_last_error(NULL), status));
        return;
    }
    printf("%-14s %s", label, info.name);
    if (info.detail[0])
        printf(", %s", info.detail);
    if (info.compute_units)
        printf(", %d compute units", (int)info.compute_units);
    if (info.memory)
        printf(", %s", cli_bytes(info.memory, memory, sizeof(memory)));
    printf("\n");
    if (info.status)
        printf("%-14s not usable: %s\n", "", reason(info.why, info.status));
}

static void print_backend(const rfa_backend_info *backend)
{
    int32_t count = 0;
    if (backend->status) {
        printf("%-14s not usable: %s\n", backend->name, reason(backend->why, backend->status));
        return;
    }
    rfa_status status = rfa_device_count(backend->name, &count);
    if (status)
        printf("%-14s not usable: %s\n", backend->name, reason(rfa_last_error(NULL), status));
    else if (count == 0)
        printf("%-14s sees no device\n", backend->name);
    for (int32_t i = 0; !status && i < count; i++)
        print_device(backend->name, i);
}

/* ---- JSON ----------------------------------------------------------------------------- */

static bool add_status(cJSON *object, rfa_status status, const char *why)
{
    return json_add_text(object, "status", rfa_status_name(status)) &&
           json_add_text(object, "why", status ? reason(why, status) : NULL);
}

static bool describe_device(cJSON *list, const char *backend, int32_t index)
{
    rfa_device_info info;
    memset(&info, 0, sizeof(info));
    cJSON *object = cJSON_CreateObject();
    if (!object || !cJSON_AddItemToArray(list, object)) {
        cJSON_Delete(object);
        return false;
    }
    rfa_status status = rfa_device_get(backend, index, &info);
    if (status)
        return json_add_integer(object, "index", index) &&
               add_status(object, status, rfa_last_error(NULL));
    return json_add_integer(object, "index", index) && json_add_text(object, "name", info.name) &&
           json_add_text(object, "detail", info.detail) &&
           json_add_integer(object, "dlpack_device_type", info.device.device_type) &&
           json_add_unsigned(object, "memory", info.memory) &&
           json_add_integer(object, "compute_units", info.compute_units) &&
           add_status(object, info.status, info.why);
}

static bool describe_backend(cJSON *list, const rfa_backend_info *backend)
{
    int32_t count = 0;
    rfa_status status = backend->status;
    const char *why = backend->why;
    cJSON *object = cJSON_CreateObject();
    if (!object || !cJSON_AddItemToArray(list, object)) {
        cJSON_Delete(object);
        return false;
    }
    if (!status && (status = rfa_device_count(backend->name, &count)))
        why = rfa_last_error(NULL);
    if (!json_add_text(object, "name", backend->name) ||
        !json_add_text(object, "path", backend->path) || !add_status(object, status, why))
        return false;
    cJSON *devices = cJSON_AddArrayToObject(object, "devices");
    bool ok = devices != NULL;
    for (int32_t i = 0; ok && !status && i < count; i++)
        ok = describe_device(devices, backend->name, i);
    return ok;
}

static int print_json(size_t count)
{
    rfa_backend_info info;
    cJSON *root = cJSON_CreateObject();
    bool ok = json_add_text(root, "version", rfa_version());
    cJSON *backends = cJSON_AddArrayToObject(root, "backends");
    ok = ok && backends;
    for (size_t i = 0; ok && i < count; i++)
        if (!rfa_backend_get(i, &info))
            ok = describe_backend(backends, &info);
    ok = ok && json_print(stdout, root);
    cJSON_Delete(root);
    return ok ? CLI_OK : cli_fail(NAME, RFA_OUT_OF_MEMORY, "no memory for the list");
}

typedef struct devices_options {
    bool json;
} devices_options;

#define FIELD(member) offsetof(devices_options, member)

static const cli_option table[] = {
    {.name = "json", .kind = CLI_FLAG, .value = FIELD(json), .help = "print JSON"},
};

#undef FIELD

static const cli_command command = {.name = NAME,
                                    .usage = "rfa devices [--json]",
                                    .about = about,
                                    .examples = examples,
                                    .options = table,
                                    .option_count = sizeof(table) / sizeof(table[0])};

int cmd_devices(int argc, char **argv)
{
    devices_options options = {false};
    int code = cli_parse(&command, &options, argc, argv, NULL, NULL);
    if (code >= 0)
        return code;

    rfa_backend_info info;
    rfa_error err = {""};
    size_t count;
    rfa_status status = device_backends(&count, &err);
    if (status)
        return cli_fail(NAME, status, "%s", err.text);
    if (options.json)
        return print_json(count);
    for (size_t i = 0; i < count; i++)
        if (!rfa_backend_get(i, &info))
            print_backend(&info);
    if (count == 0)
        printf("no backend modules were found\n");
    return CLI_OK;
}
