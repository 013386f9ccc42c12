/*
 * Injection into real tasks: whatever they were doing, they must not notice.
 *
 * A child does something that is easily disturbed, again and again or for long, while a userfaultfd is fetched from it
 * many times; then the child itself says whether anything was wrong.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "child.h"
#include "inject-helpers.h"

/* Busy threads with registers full of state: a checksum that any disturbed register or flag would spoil. */
static void *churn(void *argument)
{
	uint64_t a = 1, b = 2, c = 3, d = 4;
	double x = 1.5;

	for (uint64_t i = 0; i < (uint64_t)(uintptr_t)argument; i++) {
		a = a * 6364136223846793005ULL + b;
		b ^= c << 7 | c >> 57;
		c += d ^ i;
		d = (d << 13 | d >> 51) + a;
		x = x * 1.0000001 + (double)(d & 1);
	}
	return (void *)(uintptr_t)(a ^ b ^ c ^ d ^ (uint64_t)x);
}

#define CHURN 10000000ULL

static void *churn_forever(void *argument)
{
	void *want = argument;

	while (churn((void *)(uintptr_t)CHURN) == want)
		continue;
	_exit(1);
}

static int busy(int fd, void *argument)
{
	void *want = argument, *got;
	char end;
	pthread_t thread;

	pthread_create(&thread, NULL, churn_forever, want);
	ready(fd);
	do {
		got = churn((void *)(uintptr_t)CHURN);
	} while (got == want && recv(fd, &end, 1, MSG_DONTWAIT) < 0);
	return got != want;
}

static void test_busy_threads(void **state)
{
	struct child c = child_start(busy, churn((void *)(uintptr_t)CHURN));
	uint64_t begin;
	int n;

	(void)state;
	child_receive(c.fd);
	begin = clock_now_ns();
	n = inject_many(c.pid, TIMES);
	print_message("# injected into a busy task in %.0f us on average\n",
		      (double)(clock_now_ns() - begin) / 1e3 / n);
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

/* Queued signals all arrive, in order of their number, while an itimer fires every millisecond. */
static uint64_t storm_sum;
static volatile sig_atomic_t storm_count, storm_ticks;

static void storm_handler(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	storm_sum += (uint64_t)info->si_value.sival_int + 1;
	storm_count++;
}

static void storm_tick(int number)
{
	(void)number;
	storm_ticks++;
}

static int storm(int fd, void *argument)
{
	struct sigaction action = { .sa_sigaction = storm_handler, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct itimerval timer = { { 0, 1000 }, { 0, 1000 } };
	uint64_t expected = (uint64_t)(uintptr_t)argument, deadline;
	struct sigaction tick = { .sa_handler = storm_tick, .sa_flags = SA_RESTART };

	sigaction(SIGRTMIN, &action, NULL);
	sigaction(SIGALRM, &tick, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	ready(fd);
	deadline = deadline_in_ms(20000);
	while ((uint64_t)storm_count < expected && clock_now_ns() < deadline)
		continue;
	child_receive(fd);
	if ((uint64_t)storm_count != expected || storm_sum != expected * (expected + 1) / 2)
		return 1;
	return storm_ticks < 10;
}

static void test_signal_storm(void **state)
{
	struct child c = child_start(storm, (void *)(uintptr_t)TIMES);

	(void)state;
	child_receive(c.fd);
	for (int i = 0; i < TIMES; i++) {
		assert_int_equal(sigqueue(c.pid, SIGRTMIN, (union sigval){ .sival_int = i }), 0);
		inject_many(c.pid, 2);
	}
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

static int sleeper(int fd, void *argument)
{
	(void)argument;
	ready(fd);
	child_receive(fd);
	return 0;
}

static void test_stopped_stays_stopped(void **state)
{
	struct child c = child_start(sleeper, NULL);
	int status;

	(void)state;
	child_receive(c.fd);
	kill(c.pid, SIGSTOP);
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	inject_many(c.pid, TIMES);
	wait_for_state(c.pid, 'T');
	kill(c.pid, SIGCONT);
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

/* userfaultfd refused by a filter, with EPERM or by death; an unprivileged user; not dumpable. */
static int filtered(int fd, void *argument)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, (uint32_t)(uintptr_t)argument),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	if (syscall(SYS_setresgid, 65534, 65534, 65534) || syscall(SYS_setresuid, 65534, 65534, 65534))
		return 1;
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 2;
	ready(fd);
	child_receive(fd);
	/* The filter must be in force again. */
	if ((uint32_t)(uintptr_t)argument != SECCOMP_RET_KILL_PROCESS &&
	    (syscall(SYS_userfaultfd, 0) != -1 || errno != EPERM))
		return 3;
	return 0;
}

static void test_seccomp_and_other_users(void **state)
{
	const uint32_t actions[] = { SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_KILL_PROCESS };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		struct child c = child_start(filtered, (void *)(uintptr_t)actions[i]);

		child_receive(c.fd);
		inject_many(c.pid, 10);
		child_send(c.fd, 1);
		assert_int_equal(child_join(&c), 0);
	}
}

static int debugger(int fd, void *argument)
{
	pid_t victim = *(pid_t *)argument;

	if (ptrace(PTRACE_SEIZE, victim, 0, 0) < 0)
		return 1;
	ready(fd);
	child_receive(fd);
	return 0;
}

static void test_already_traced(void **state)
{
	struct child victim = child_start(sleeper, NULL);
	struct child tracer = child_start(debugger, &victim.pid);
	struct error err = { 0 };
	char want[64];

	(void)state;
	child_receive(victim.fd);
	child_receive(tracer.fd);
	assert_int_equal(inject_once(victim.pid, &err), -EPERM);
	snprintf(want, sizeof(want), "traced by process %d", (int)tracer.pid);
	assert_non_null(strstr(err.text, want));
	child_end(&tracer);
	inject_many(victim.pid, 1);
	child_end(&victim);
}

static int injector(int fd, void *argument)
{
	const struct child *victim = argument;

	ready(fd);
	for (;;)
		if (inject_once(victim->pid, NULL) < 0)
			return 1;
}

static void wait_untraced(pid_t pid)
{
	uint64_t tracer = 1, deadline = deadline_in_ms(5000);

	while (!status_read_number(pid, "TracerPid", &tracer) && tracer)
		assert_true(clock_now_ns() < deadline);
}

/* Whoever injects is killed with SIGKILL, most often in the middle of it: the task gets its registers back all the same. */
static void test_killed_injector(void **state)
{
	struct child c = child_start(busy, churn((void *)(uintptr_t)CHURN));
	int before;

	(void)state;
	child_receive(c.fd);
	before = open_descriptors(c.pid);
	for (long i = 0; i < 60; i++) {
		struct timespec pause = { .tv_nsec = 1000000 + i * 37000 };
		struct child killed = child_start(injector, &c);

		child_receive(killed.fd);
		nanosleep(&pause, NULL);
		child_end(&killed);
		wait_untraced(c.pid);
	}
	assert_int_equal(open_descriptors(c.pid), before);
	child_send(c.fd, 0);
	assert_int_equal(child_join(&c), 0);
}

/* A parent in vfork(2) waits uninterruptibly: refused in time, and unharmed afterwards; a second thread is used instead. */
static int vforker(int fd, void *argument)
{
	bool with_thread = argument != NULL;
	pthread_t thread;
	pid_t child;

	if (with_thread)
		pthread_create(&thread, NULL, churn, (void *)(uintptr_t)(1000 * CHURN));
	ready(fd);
	child = vfork();
	if (!child) {
		struct timespec ts = { .tv_nsec = 900000000 };

		nanosleep(&ts, NULL);
		_exit(0);
	}
	return waitpid(child, NULL, 0) != child;
}

static void test_uninterruptible(void **state)
{
	struct child c = child_start(vforker, NULL);
	struct error err = { 0 };

	(void)state;
	child_receive(c.fd);
	wait_for_state(c.pid, 'D');
	assert_int_equal(inject_once(c.pid, &err), -ETIMEDOUT);
	assert_int_equal(child_join(&c), 0);
	c = child_start(vforker, (void *)1);
	child_receive(c.fd);
	wait_for_state(c.pid, 'D');
	inject_many(c.pid, 1);
	assert_int_equal(child_join(&c), 0);
}

#if defined(__x86_64__) && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)

/*
 * A restartable sequence that spins for a while. 0: its descriptor was gone though the sequence went on, so the kernel took it
 * for left; -1: aborted, as after any preemption; otherwise the descriptor.
 */
static long rseq_round(char *rseq)
{
	long result;

	__asm__ volatile(
		".pushsection __rseq_cs, \"aw\"\n"
		".balign 32\n"
		"3: .long 0, 0\n"
		".quad 1f, 2f - 1f, 4f\n"
		".popsection\n"
		"leaq 3b(%%rip), %%rax\n"
		"movq %%rax, 8(%[rseq])\n"
		"1: movq $200000, %%rcx\n"
		"5: decq %%rcx\n"
		"jnz 5b\n"
		"movq 8(%[rseq]), %[result]\n"
		"2: jmp 6f\n"
		".byte 0x0f, 0xb9, 0x3d\n"
		".long 0x53053053\n" /* RSEQ_SIG, which the kernel checks before it jumps to the abort handler */
		"4: movq $-1, %[result]\n"
		"6:\n"
		: [result] "=&r"(result)
		: [rseq] "r"(rseq)
		: "rax", "rcx", "memory", "cc");
	return result;
}

static int restartable(int fd, void *argument)
{
	char *rseq = (char *)__builtin_thread_pointer() + __rseq_offset, end;
	uint64_t aborted = 0;

	(void)argument;
	if (!__rseq_size)
		return 77;
	ready(fd);
	do {
		long result = rseq_round(rseq);

		if (!result)
			return 1;
		aborted += result == -1;
	} while (recv(fd, &end, 1, MSG_DONTWAIT) < 0);
	return !aborted;
}

static void test_restartable_sequences(void **state)
{
	struct child c = child_start(restartable, NULL);

	(void)state;
	child_receive(c.fd);
	inject_many(c.pid, TIMES);
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

#endif

/* In a pid and a mount namespace of its own. */
static int namespaced(int fd, void *argument)
{
	pid_t inner;

	(void)argument;
	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		return 1;
	inner = fork();
	if (!inner) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		child_receive(fd);
		_exit(getpid() == 1 ? 0 : 1);
	}
	child_send(fd, (uint64_t)inner);
	if (waitpid(inner, &(int){ 0 }, 0) != inner)
		return 2;
	return 0;
}

static void test_namespaces(void **state)
{
	struct child c = child_start(namespaced, NULL);
	pid_t inner = (pid_t)child_receive(c.fd);

	(void)state;
	inject_many(inner, 10);
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy_threads),
		cmocka_unit_test(test_signal_storm),
		cmocka_unit_test(test_stopped_stays_stopped),
		cmocka_unit_test(test_seccomp_and_other_users),
		cmocka_unit_test(test_already_traced),
		cmocka_unit_test(test_killed_injector),
		cmocka_unit_test(test_uninterruptible),
#if defined(__x86_64__) && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
		cmocka_unit_test(test_restartable_sequences),
#endif
		cmocka_unit_test(test_namespaces),
	};

	return cmocka_run_group_tests_name("inject", tests, NULL, NULL);
}
