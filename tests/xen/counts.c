// SPDX-License-Identifier: BSD-3-Clause
/*
 * A QEMU plug-in that counts what each CPU of an emulated Xen machine executes. Under emulation these counts mean
 * something, and seconds do not.
 *
 *  - Instructions, by whose address they lie at: Xen's, the kernel's, a module's, a user program's. Counted a
 *    translation block at a time, in which all are executed unless one faults.
 *  - Hypercalls by number, and system calls. Both are the instruction syscall: at a kernel's address it goes from a
 *    paravirtual kernel to Xen, and the number is that of the `mov $number,%eax` before it in the block, or in the block
 *    that called this one. What a PVH guest asks for by vmmcall is not counted.
 *  - Writes to CR3, each of which flushes the TLB, and to CR4; invlpg.
 *
 *	-plugin libcounts.so,mark=FIFO,out=FILE
 *
 * For each line written to FIFO, a line of JSON is appended to FILE: an array with an object for each CPU that has been
 * started. A machine without Xen is counted as well: then there are no hypercalls.
 *
 * With dom0 pinned to one CPU and its guests to another, "by CPU" is "by domain, with what Xen does for it".
 *
 * Only the few functions of QEMU's plug-in interface (version 1, QEMU 4.2 to 8.2) that are used are declared here:
 * Debian has no package with its header.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_CB_NO_REGS };
typedef void translated_fn(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void executed_fn(unsigned int cpu, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_fn *fn);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, executed_fn *fn, int flags,
					  void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, executed_fn *fn,
					    int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv);
extern int qemu_plugin_version;
int qemu_plugin_version = 1;

#define CPUS       8
#define HYPERCALLS 64

enum where { XEN, KERNEL, MODULE, USER, WHERES };
enum event { CR3, CR4, INVLPG, SYSCALL, EVENTS };
static const char *const where_names[] = { "xen", "kernel", "module", "user" };
static const char *const event_names[] = { "cr3", "cr4", "invlpg", "syscalls" };

/* Written by its CPU's thread only; read torn by none, for each is one word. */
static struct cpu {
	uint64_t insns[WHERES], events[EVENTS], hypercalls[HYPERCALLS];
	uint64_t number; /* of the hypercall that a function is called for */
} __attribute__((aligned(128))) cpus[CPUS];

static char mark_path[256], out_path[256];

static void block_executed(unsigned int cpu, void *data)
{
	uint64_t v = (uint64_t)data;

	cpus[cpu % CPUS].insns[v >> 32] += (uint32_t)v;
}

static void event_executed(unsigned int cpu, void *data)
{
	cpus[cpu % CPUS].events[(uint64_t)data]++;
}

static void number_passed(unsigned int cpu, void *data)
{
	cpus[cpu % CPUS].number = (uint64_t)data;
}

/* data is the number and one, or NULL: passed by the caller. */
static void hypercall_executed(unsigned int cpu, void *data)
{
	struct cpu *c = &cpus[cpu % CPUS];

	c->hypercalls[data ? (uint64_t)data - 1 : c->number]++;
}

/* Xen's and Linux's layouts of the address space. */
static enum where where_is(uint64_t address)
{
	if (address >= 0xffffffffc0000000)
		return MODULE;
	if (address >= 0xffff800000000000 && address < 0xffff880000000000)
		return XEN;
	return address >> 63 ? KERNEL : USER;
}

/* Which event an instruction after its prefixes is, EVENTS if none. */
static enum event event_of(const uint8_t *code, size_t size)
{
	if (size < 3 || code[0] != 0x0f)
		return EVENTS;
	if (code[1] == 0x22 && (code[2] >> 3 & 7) == 3)
		return CR3;
	if (code[1] == 0x22 && (code[2] >> 3 & 7) == 4)
		return CR4;
	if (code[1] == 0x01 && (code[2] >> 3 & 7) == 7 && code[2] >> 6 != 3)
		return INVLPG;
	return EVENTS;
}

static void watch(struct qemu_plugin_insn *insn, executed_fn *fn, uint64_t data)
{
	qemu_plugin_register_vcpu_insn_exec_cb(insn, fn, QEMU_PLUGIN_CB_NO_REGS, (void *)data);
}

/* number is that of the hypercall that eax holds, -1 if unknown; returns what it holds afterwards. */
static int look(struct qemu_plugin_insn *insn, enum where where, int number)
{
	const uint8_t *code = qemu_plugin_insn_data(insn);
	size_t size = qemu_plugin_insn_size(insn), prefix = 0;
	int kernel = where == KERNEL || where == MODULE;
	enum event event;

	if (size == 2 && code[0] == 0x0f && code[1] == 0x05) {
		if (where == USER)
			watch(insn, event_executed, SYSCALL);
		else if (kernel)
			watch(insn, hypercall_executed, number + 1);
	} else if (size == 5 && code[0] == 0xb8 && kernel) { /* mov $number,%eax */
		uint32_t value;

		memcpy(&value, code + 1, sizeof(value));
		return value < HYPERCALLS ? (int)value : -1;
	} else if (size == 5 && code[0] == 0xe8 && number >= 0) { /* call */
		watch(insn, number_passed, number);
	}
	while (prefix < size && (code[prefix] & 0xf0) == 0x40)
		prefix++;
	event = event_of(code + prefix, size - prefix);
	if (event != EVENTS)
		watch(insn, event_executed, event);
	return number;
}

static void block_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	enum where where = where_is(qemu_plugin_tb_vaddr(tb));
	uint64_t count = qemu_plugin_tb_n_insns(tb);
	int number = -1;

	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_executed, QEMU_PLUGIN_CB_NO_REGS,
					     (void *)((uint64_t)where << 32 | count));
	for (size_t i = 0; i < count; i++)
		number = look(qemu_plugin_tb_get_insn(tb, i), where, number);
}

static void write_cpu(FILE *out, const struct cpu *cpu)
{
	const char *comma = "";

	fputc('{', out);
	for (int i = 0; i < WHERES; i++)
		fprintf(out, "\"%s\": %llu, ", where_names[i], (unsigned long long)cpu->insns[i]);
	for (int i = 0; i < EVENTS; i++)
		fprintf(out, "\"%s\": %llu, ", event_names[i], (unsigned long long)cpu->events[i]);
	fputs("\"hypercalls\": {", out);
	for (int i = 0; i < HYPERCALLS; i++) {
		if (!cpu->hypercalls[i])
			continue;
		fprintf(out, "%s\"%d\": %llu", comma, i, (unsigned long long)cpu->hypercalls[i]);
		comma = ", ";
	}
	fputs("}}", out);
}

/* A CPU that has not started has executed nothing. */
static bool started(const struct cpu *cpu)
{
	return cpu->insns[XEN] || cpu->insns[KERNEL];
}

static void write_counts(void)
{
	FILE *out = fopen(out_path, "a");

	if (!out)
		return;
	for (int i = 0; i < CPUS && started(&cpus[i]); i++) {
		fputs(i ? ", " : "[", out);
		write_cpu(out, &cpus[i]);
	}
	fputs("]\n", out);
	fclose(out);
}

static void *wait_for_marks(void *none)
{
	char line[64];

	for (;;) {
		FILE *marks = fopen(mark_path, "r"); /* until there is a writer */

		if (!marks)
			return NULL;
		while (fgets(line, sizeof(line), marks))
			write_counts();
		fclose(marks);
	}
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	pthread_t thread;

	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "mark=", 5))
			snprintf(mark_path, sizeof(mark_path), "%s", argv[i] + 5);
		else if (!strncmp(argv[i], "out=", 4))
			snprintf(out_path, sizeof(out_path), "%s", argv[i] + 4);
	}
	if (!*mark_path || !*out_path || pthread_create(&thread, NULL, wait_for_marks, NULL))
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
	return 0;
}
