/* A peer of `rfa bench`: PyTorch in a process of its own, on the same tensors.
 *
 * tools/peer_torch.py gets the path of a safetensors file and answers on a pipe,
 * a line each way: "time NAME CALLS" -> seconds a call. While one side computes,
 * the other waits in read(2), so both have the machine to themselves.
 */
#include "tools/bench.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/cleanup.h"
#include "tools/safetensors.h"

struct bench_peer {
    pid_t pid;
    FILE *to, *from;
    char line[512];
    char names[BENCH_MAX_PEERS][48];
    int count;
    char file[64]; /* the tensors; "" when gone */
};

/* ---- the helper's files ---- */

static rfa_status write_tensors(rfa_context *ctx, attention_tensors *tensors, rfa_dtype dtype,
                                const char *path, rfa_error *err)
{
    static const char *const names[3] = {"q", "k", "v"};
    device_tensor *const all[3] = {&tensors->q, &tensors->k, &tensors->v};
    st_writer *writer = NULL;
    rfa_status status = st_writer_create(&writer, path, err);
    for (int i = 0; i < 3 && status == RFA_OK; i++)
        status = st_writer_tensor(writer, names[i], dtype, 4, all[i]->shape, NULL, err);
    if (status == RFA_OK)
        status = st_writer_begin(writer, err);
    for (int i = 0; i < 3 && status == RFA_OK; i++) {
        status = device_tensor_fetch(ctx, all[i], err);
        if (status == RFA_OK)
            status = st_writer_append(writer, all[i]->host, all[i]->size, err);
    }
    if (status == RFA_OK)
        status = st_writer_commit(writer, err);
    st_writer_destroy(writer);
    return status;
}

/* Beside the program in a build folder, else where it was installed: RFA_DATA_DIR,
 * which starts from the program's folder unless it is absolute. */
static bool find_script(char *path, size_t size)
{
    char folder[2048] = "";
    ssize_t length = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    char *slash = length > 0 ? strrchr(folder, '/') : NULL;
    if (slash) {
        *slash = '\0';
        snprintf(path, size, "%s/peer_torch.py", folder);
        if (access(path, R_OK) == 0)
            return true;
    }
    snprintf(path, size, "%s/%s/peer_torch.py", RFA_DATA_DIR[0] == '/' ? "" : folder, RFA_DATA_DIR);
    return access(path, R_OK) == 0;
}

/* ---- the process ---- */

static void exec_helper(const bench_request *request, const char *script, const char *file,
                        DLDevice device, const int in[2], const int out[2])
{
    char threads[16], place[32] = "cpu";
    const char *python = request->python ? request->python : "python3";
    snprintf(threads, sizeof(threads), "%d", (int)request->threads);
    if (device.device_type == kDLCUDA)
        snprintf(place, sizeof(place), "cuda:%d", (int)device.device_id);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    close(in[0]);
    close(in[1]);
    close(out[0]);
    close(out[1]);
    if (request->peer_isa) {
        bool avx2 = strcmp(request->peer_isa, "avx2") == 0;
        setenv("ATEN_CPU_CAPABILITY", request->peer_isa, 1);
        setenv("ONEDNN_MAX_CPU_ISA", avx2 ? "AVX2" : "AVX512_CORE_BF16", 1);
        setenv("MKL_ENABLE_INSTRUCTIONS", avx2 ? "AVX2" : "AVX512", 1);
    }
    const char *mask = request->causal ? "causal" : "none";
    execlp(python, python, script, file, place, threads, mask, (char *)NULL);
    _exit(127);
}

static rfa_status spawn(bench_peer *peer, const bench_request *request, DLDevice device,
                        rfa_error *err)
{
    char script[4096];
    int in[2], out[2];
    if (!find_script(script, sizeof(script)))
        return rfa_fail(err, RFA_IO_ERROR, "peer_torch.py cannot be read (looked for %.400s)",
                        script);
    if (pipe(in) != 0)
        return rfa_fail(err, RFA_IO_ERROR, "no pipe: %s", strerror(errno));
    if (pipe(out) != 0) {
        close(in[0]);
        close(in[1]);
        return rfa_fail(err, RFA_IO_ERROR, "no pipe: %s", strerror(errno));
    }
    peer->pid = fork();
    if (peer->pid == 0)
        exec_helper(request, script, peer->file, device, in, out);
    close(in[0]);
    close(out[1]);
    peer->to = fdopen(in[1], "w");
    peer->from = fdopen(out[0], "r");
    if (peer->pid < 0 || !peer->to || !peer->from)
        return rfa_fail(err, RFA_IO_ERROR, "cannot start the peer: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN); /* a helper that died is an error of the next write */
    return RFA_OK;
}

static rfa_status read_line(bench_peer *peer, rfa_error *err)
{
    if (!fgets(peer->line, sizeof(peer->line), peer->from))
        return rfa_fail(err, RFA_IO_ERROR,
                        "the peer's helper stopped (is PyTorch installed for its python?)");
    peer->line[strcspn(peer->line, "\n")] = '\0';
    if (strncmp(peer->line, "error ", 6) == 0)
        return rfa_fail(err, RFA_IO_ERROR, "peer: %.400s", peer->line + 6);
    return RFA_OK;
}

static rfa_status read_names(bench_peer *peer, rfa_error *err)
{
    char *rest = NULL;
    rfa_status status = read_line(peer, err);
    if (status != RFA_OK)
        return status;
    char *word = strtok_r(peer->line, " ", &rest);
    if (!word || strcmp(word, "ready") != 0)
        return rfa_fail(err, RFA_IO_ERROR, "the peer's helper answered \"%.100s\"", peer->line);
    while ((word = strtok_r(NULL, " ", &rest)) && peer->count < BENCH_MAX_PEERS)
        snprintf(peer->names[peer->count++], sizeof(peer->names[0]), "%s", word);
    if (peer->count == 0)
        return rfa_fail(err, RFA_UNSUPPORTED, "the peer has no implementation for these tensors");
    return RFA_OK;
}

/* /dev/shm where it is, so that the tensors never meet a disk. */
static rfa_status name_file(bench_peer *peer, rfa_error *err)
{
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(peer->file, sizeof(peer->file), "%s/rfa-peer-XXXXXX", folder);
    int fd = mkstemp(peer->file);
    if (fd < 0)
        return rfa_fail(err, RFA_IO_ERROR, "no temporary file in %s: %s", folder, strerror(errno));
    close(fd);
    cleanup_register(peer->file);
    return RFA_OK;
}

static void remove_file(bench_peer *peer)
{
    if (!peer->file[0])
        return;
    unlink(peer->file);
    cleanup_forget(peer->file);
    peer->file[0] = '\0';
}

rfa_status bench_peer_start(const bench_request *request, rfa_context *ctx,
                            attention_tensors *tensors, bench_peer **peer, rfa_error *err)
{
    DLDataType type = tensors->q.tensor.dtype;
    rfa_dtype dtype = type.bits == 32 ? RFA_F32 : type.code == kDLBfloat ? RFA_BF16 : RFA_F16;
    bench_peer *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a peer");
    rfa_status status = name_file(made, err);
    if (status == RFA_OK)
        status = write_tensors(ctx, tensors, dtype, made->file, err);
    if (status == RFA_OK)
        status = spawn(made, request, rfa_context_device(ctx), err);
    if (status == RFA_OK)
        status = read_names(made, err);
    remove_file(made);
    if (status == RFA_OK)
        *peer = made;
    else
        bench_peer_stop(made);
    return status;
}

int bench_peer_count(const bench_peer *peer)
{
    return peer ? peer->count : 0;
}

const char *bench_peer_name(const bench_peer *peer, int index)
{
    return peer->names[index];
}

rfa_status bench_peer_time(bench_peer *peer, int index, int calls, double *seconds, rfa_error *err)
{
    char *end;
    fprintf(peer->to, "time %s %d\n", peer->names[index], calls);
    fflush(peer->to);
    rfa_status status = read_line(peer, err);
    if (status != RFA_OK)
        return status;
    *seconds = strtod(peer->line, &end);
    if (end == peer->line || *end || !(*seconds > 0))
        return rfa_fail(err, RFA_IO_ERROR, "the peer's helper answered \"%.100s\"", peer->line);
    return RFA_OK;
}

void bench_peer_stop(bench_peer *peer)
{
    if (!peer)
        return;
    remove_file(peer);
    if (peer->to)
        fclose(peer->to); /* its end of input */
    if (peer->from)
        fclose(peer->from);
    if (peer->pid > 0)
        waitpid(peer->pid, NULL, 0);
    free(peer);
}
