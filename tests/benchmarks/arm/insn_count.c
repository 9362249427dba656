// A QEMU plugin that counts the guest's instructions, by the function they belong to:
// qemu-aarch64 -plugin insn_count.so,out=FILE writes "COUNT FUNCTION" lines for what lies between
// the guest's last two calls of getppid(), which mark the ends of its runs.
//
// Every translated block adds its number of instructions when it is entered, so the sum is exact
// for one guest thread. Functions of shared libraries are unknown to QEMU and count as "?".
// Debian's packages of QEMU's user emulation come without qemu-plugin.h, so what is needed of it
// (version 1 of the interface, QEMU 4.2 to 8.2) is declared here.
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_plugin_tb Block;
typedef struct qemu_plugin_insn Instruction;
typedef void (*OnBlock)(qemu_plugin_id_t, Block*);
typedef void (*OnSyscall)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t,
                          uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
typedef void (*OnExit)(qemu_plugin_id_t, void* context);
enum { kAddU64 = 0 };  // of enum qemu_plugin_op

size_t qemu_plugin_tb_n_insns(const Block* block);
Instruction* qemu_plugin_tb_get_insn(const Block* block, size_t index);
const char* qemu_plugin_insn_symbol(const Instruction* instruction);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, OnBlock on_block);
void qemu_plugin_register_vcpu_tb_exec_inline(Block* block, int op, void* at, uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, OnSyscall on_syscall);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, OnExit on_exit, void* context);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { kGetppid = 173, kMaxFunctions = 1 << 14 };  // the number of the call on aarch64
static struct {
  const char* name;  // QEMU keeps it
  uint64_t now, at_mark, between_marks;
} functions[kMaxFunctions];
static size_t function_count;
static char path[4096];

// The first entry is of what has no name, or came after the table was full.
static uint64_t* counter(const char* name) {
  for (size_t i = 0; i < function_count; ++i) {
    if (functions[i].name == name) return &functions[i].now;
  }
  if (function_count == kMaxFunctions) return &functions[0].now;
  functions[function_count].name = name;
  return &functions[function_count++].now;
}

static void on_block(qemu_plugin_id_t id, Block* block) {
  (void)id;
  const char* name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
  qemu_plugin_register_vcpu_tb_exec_inline(block, kAddU64, counter(name),
                                           qemu_plugin_tb_n_insns(block));
}

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                       uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                       uint64_t a8) {
  (void)id, (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7;
  (void)a8;
  if (number != kGetppid) return;
  for (size_t i = 0; i < function_count; ++i) {
    functions[i].between_marks = functions[i].now - functions[i].at_mark;
    functions[i].at_mark = functions[i].now;
  }
}

static void write_counts(qemu_plugin_id_t id, void* context) {
  (void)id, (void)context;
  FILE* out = fopen(path, "w");
  if (out == NULL) return;
  for (size_t i = 0; i < function_count; ++i) {
    if (functions[i].between_marks == 0) continue;
    const char* name = functions[i].name != NULL ? functions[i].name : "?";
    fprintf(out, "%" PRIu64 " %s\n", functions[i].between_marks, name);
  }
  fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc, char** argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof path) return 1;
  strcpy(path, argv[0] + 4);
  counter(NULL);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  qemu_plugin_register_atexit_cb(id, write_counts, NULL);
  return 0;
}
