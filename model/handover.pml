/*
 * The handover of phaul as a model for SPIN: two journals, one workload, and everything that may break (docs/model.md).
 *
 * Checked in every reachable state: the workload never runs twice, is never lost, a side that cannot know holds still, and what
 * the target resumes is what the source stopped. Checked at the end of every run: both journals are final and agree, and exactly
 * one copy runs. Faults are bounded (CRASHES, LOSSES, CUTS), and what repeats without news is not a step, so runs are finite.
 *
 * A journal is what a file is: `file` is what the next process reads, `disk` what survives the host. A side acts only on a
 * state that is on disk. A message, once sent, stays in the net: it may come late, twice and in any order, until it is lost.
 *
 * MUTATION_A ... MUTATION_L each take one rule away, STRICT_HOST asks for more than is promised (model/run, docs/model.md).
 */

#ifndef CRASHES
#define CRASHES 2 /* of either phaul, either CRIU, either host, and failing writes of `committed` */
#endif
#ifndef LOSSES
#define LOSSES 2 /* of a message */
#endif
#ifndef CUTS
#define CUTS 1 /* of the link; each may take all that is under way */
#endif

/* The states and the tables of src/migration/journal.c: tests/integration/test-model compares them. */
mtype:state = { planned, copying, frozen, committed, settled, receiving, prepared, resuming, running, aborted };

#define SOURCE_MAY(from, to) ( \
	(from == planned && to == copying) || \
	(from == copying && to == frozen) || \
	(from == frozen && to == committed) || \
	(from == committed && to == settled) || \
	(from == planned && to == aborted) || \
	(from == copying && to == aborted) || \
	(from == frozen && to == aborted) || \
	(from == committed && to == aborted) /* the target durably aborted, or the operator decides */ \
)
#define TARGET_MAY(from, to) ( \
	(from == planned && to == receiving) || \
	(from == receiving && to == prepared) || \
	(from == prepared && to == resuming) || \
	(from == resuming && to == running) || \
	(from == planned && to == aborted) || \
	(from == receiving && to == aborted) || \
	(from == prepared && to == aborted) || \
	(from == resuming && to == aborted) /* it was never let go, or the operator kept the source */ \
)

/* The two copies. held: by CRIU's ptrace only; firm: by the second means, too. half: restored and stopped. */
mtype:copy = { runs, held, firm, half, none, dead };

/* Source */
mtype:state s_file = planned, s_disk = planned;
mtype:copy s_copy = runs;
bool s_up = true;   /* phaul */
bool s_own = true;  /* this process began the migration; one that was started later only cleans up or holds */
bool s_criu;        /* it holds the dump */
bool s_said;        /* the word of the present state was said once */
bool s_undo;        /* this process gave up, before `committed` */
bool s_failed;      /* `committed` could not be written: nobody knows what the file holds */
bool s_policy_off;  /* the engine, if there is one, was told not to start the workload again; it remembers */

/* Target */
mtype:state t_file = planned, t_disk = planned;
mtype:copy t_copy = none;
bool t_up = true, t_own = true, t_said, t_told /* CRIU was told to let go */, t_forgot;
bool t_released;    /* the mark that is written before CRIU is told; after a reboot nobody can rely on its absence */
bool t_kept = true; /* what a retry would need */

/* The net */
bool link = true;
bool m_begin, m_finish, m_commit, m_done, m_abort;     /* to the target; an answer is the word of the state */
bool m_prepared, m_resuming, m_running, m_aborted;     /* to the source */
bool m_ask_source, m_ask_target;                       /* asked of the source, of the target */

/* Faults and decisions of people */
byte crashes = CRASHES, losses = LOSSES, cuts = CUTS;
bool operator_may; /* once: fence a host that nobody knows anything of, end a phaul */
bool decided;             /* an operator did decide */
bool s_fenced, t_fenced;  /* switched off for good */

/* Only for the checks */
bool ran_on;  /* the source's copy ran after its images were taken */
bool stale;   /* the target's copy was resumed though the source's had run on */
bool excused; /* the only copy went down with its host, as it would have without phaul */

#define S_READY (s_up && s_file == s_disk && !s_failed)
#define T_READY (t_up && t_file == t_disk && !t_forgot)
#define S_EARLY (s_file == planned || s_file == copying || s_file == frozen)

#ifdef STRICT_HOST
#define EXCUSES_SOURCE_HOST (t_copy != half || t_disk != prepared || s_undo || s_disk == aborted)
#else
#define EXCUSES_SOURCE_HOST true
#endif

inline s_enter(to)
{
	assert(SOURCE_MAY(s_file, to));
	s_file = to;
	s_said = false;
}

inline t_enter(to)
{
	assert(TARGET_MAY(t_file, to));
	t_file = to;
	t_said = false;
}

/* CRIU is gone: what only ptrace held runs on. */
inline s_criu_ends()
{
	s_criu = false;
	if
	:: s_copy == held -> s_copy = runs; ran_on = true
	:: else
	fi
}

/* The rollback: CRIU lets go, SIGCONT or thaw, and an engine may do as it likes again. */
inline s_release()
{
	s_criu = false;
	s_policy_off = false;
	if
	:: s_copy == held || s_copy == firm -> s_copy = runs; ran_on = true
	:: else
	fi
}

/* An engine that finds its policy switched on again may start anew what is gone. */
inline s_engine_restarts()
{
	if
	:: s_copy == dead && s_policy_off && !s_fenced -> s_copy = runs; ran_on = true
	:: true
	fi
}

/* Given up by rule: killed first, then said. */
inline t_drop()
{
	t_told = false;
	if
	:: t_copy == half -> t_copy = dead
	:: else
	fi
}

/* CRIU is gone: what it had half restored can never be resumed, and is killed. */
inline t_criu_ends()
{
	excused = excused || (s_copy == dead && t_copy == half);
	t_drop()
}

proctype source()
{
end:	do
	/* The journal: written above, synced here; a process that was just started syncs before it believes. */
	:: atomic { s_up && s_file != s_disk && (!s_failed || s_file == aborted) -> s_disk = s_file; s_failed = false }
#ifdef MUTATION_H
	:: atomic { s_up && link && s_file == committed && m_ask_source && !m_commit -> m_ask_source = false; m_commit = true }
#endif
	/* planned, copying, frozen */
	:: atomic { S_READY && s_own && !s_undo && s_file == planned -> s_enter(copying) }
	:: atomic { S_READY && s_own && !s_undo && s_file == copying && !s_said && link -> m_begin = true; s_said = true }
	:: atomic { S_READY && s_own && !s_undo && s_file == copying && s_said && s_copy == runs && !ran_on ->
		s_copy = held; s_criu = true }
	:: atomic { S_READY && s_own && !s_undo && s_file == copying && s_copy == held && s_criu -> s_enter(frozen) }
	:: atomic { S_READY && s_own && !s_undo && s_file == frozen && !s_said && link -> m_finish = true; s_said = true }
	/* The handover: stop firmly, see that CRIU held them until then, and only then write. */
#ifdef MUTATION_B
	:: atomic { S_READY && s_own && !s_undo && s_file == frozen && m_prepared && s_copy == held && s_criu ->
		s_policy_off = true; s_enter(committed) }
#else
	:: atomic { S_READY && s_own && !s_undo && s_file == frozen && m_prepared && (s_copy == held || s_copy == runs) ->
		s_copy = firm; s_policy_off = true }
#ifdef MUTATION_F
	:: atomic { S_READY && s_own && !s_undo && s_file == frozen && m_prepared && s_copy == firm -> s_enter(committed) }
#else
	:: atomic { S_READY && s_own && !s_undo && s_file == frozen && m_prepared && s_copy == firm && s_criu ->
		s_enter(committed) }
#endif
	:: atomic { S_READY && s_own && !s_undo && s_file == frozen && m_prepared && s_copy == firm && s_criu && crashes ->
		crashes--; s_failed = true; s_undo = true;
		if :: s_file = committed :: skip fi;
		if :: s_disk = committed :: skip fi }
#endif
	/* Giving up before `committed`: for any reason, and always after a restart. */
	:: atomic { S_READY && S_EARLY && !s_undo -> s_undo = true }
	:: atomic { s_up && s_undo && !s_failed && (s_copy == held || s_copy == firm) -> s_release() }
#ifdef MUTATION_I
	:: atomic { s_up && s_undo && s_failed && (s_copy == held || s_copy == firm) -> s_release() }
#endif
	:: atomic { S_READY && s_undo && S_EARLY -> s_enter(aborted) }
	:: atomic { s_up && s_failed && s_file != aborted -> s_file = frozen; s_enter(aborted) }
	:: atomic { S_READY && s_undo && !s_said && link && !m_abort -> m_abort = true; s_said = true }
	/* aborted: the undo is finished, by whoever finds it unfinished. */
	:: atomic { S_READY && s_file == aborted &&
		(s_copy == held || s_copy == firm || s_criu || s_policy_off) ->
		s_engine_restarts(); s_release() }
	/* committed: hold */
#ifdef MUTATION_A
	:: atomic { s_up && s_own && !s_failed && s_file == committed && !s_said && link -> m_commit = true; s_said = true }
#else
	:: atomic { S_READY && s_own && s_file == committed && !s_said && link -> m_commit = true; s_said = true }
#endif
#ifdef MUTATION_D
	:: atomic { S_READY && s_file == committed && !link && s_copy != runs -> s_release() }
#endif
	:: atomic { S_READY && s_file == committed && link && !m_ask_target && !m_running && !m_aborted -> m_ask_target = true }
#ifdef MUTATION_G
	:: atomic { S_READY && s_file == committed && (m_running || m_resuming) && s_copy != dead ->
		s_copy = dead; s_criu = false }
	:: atomic { S_READY && s_file == committed && (m_running || m_resuming) && s_copy == dead -> s_enter(settled) }
#else
	:: atomic { S_READY && s_file == committed && m_running && s_copy != dead -> s_copy = dead; s_criu = false }
	:: atomic { S_READY && s_file == committed && m_running && s_copy == dead -> s_enter(settled) }
#endif
#ifdef MUTATION_L
	:: atomic { S_READY && s_file == committed && m_aborted && s_copy == firm -> s_release(); s_undo = true }
	:: atomic { S_READY && s_file == committed && m_aborted && (s_undo || s_copy == dead) -> s_enter(aborted) }
#endif
#if !defined(MUTATION_K) && !defined(MUTATION_L)
	:: atomic { S_READY && s_file == committed && m_aborted -> s_enter(aborted) }
#endif
	:: atomic { S_READY && s_own && s_file == settled && !s_said && link -> m_done = true; s_said = true }
	/* What the target asks; `frozen` and before are no answer yet. */
	:: atomic { S_READY && link && m_ask_source && s_file == committed && !m_commit -> m_ask_source = false; m_commit = true }
	:: atomic { S_READY && link && m_ask_source && s_file == settled && !m_done -> m_ask_source = false; m_done = true }
	:: atomic { S_READY && link && m_ask_source && s_file == aborted && !m_abort -> m_ask_source = false; m_abort = true }
	od
}

proctype target()
{
end:	do
	:: atomic { t_up && !t_forgot && t_file != t_disk -> t_disk = t_file }
	/* planned, receiving */
	:: atomic { T_READY && t_own && t_file == planned && m_begin && link -> t_enter(receiving) }
	:: atomic { T_READY && t_own && t_file == receiving && m_finish && link && t_copy == none -> t_copy = half }
	:: atomic { T_READY && t_own && t_file == receiving && t_copy == half -> t_enter(prepared) }
	/* Giving up before `prepared`: for any reason, and always after a restart. First nothing is left, then it is said. */
	:: atomic { T_READY && (t_file == planned || t_file == receiving) -> t_drop(); t_enter(aborted) }
	/* prepared: hold */
	:: atomic { T_READY && t_own && t_file == prepared && !t_said && link -> m_prepared = true; t_said = true }
#ifdef MUTATION_C
	:: atomic { T_READY && t_file == prepared && !link -> t_drop(); t_forgot = true }
#endif
	:: atomic { T_READY && t_file == prepared && link && !m_ask_source && !m_commit && !m_abort -> m_ask_source = true }
	:: atomic { T_READY && t_file == prepared && m_abort && link -> t_drop(); t_enter(aborted) }
#ifndef MUTATION_J
	:: atomic { T_READY && t_file == prepared && t_copy == dead -> t_enter(aborted) }
#endif
#ifdef MUTATION_E
	:: atomic { T_READY && t_file == prepared && t_copy == half -> t_enter(resuming) }
#else
	:: atomic { T_READY && t_file == prepared && t_copy == half && m_commit && link -> t_enter(resuming) }
#endif
	/* resuming: it ends well, or people have to look */
	:: atomic { T_READY && t_file == resuming && t_copy == half && !t_told -> t_released = true; t_told = true }
	:: atomic { T_READY && t_file == resuming && t_copy == dead && !t_released -> t_enter(aborted) }
	:: atomic { T_READY && t_file == resuming && t_copy == runs -> t_enter(running) }
	:: atomic { T_READY && t_file == resuming && t_copy == dead && link && !m_ask_source && !m_abort -> m_ask_source = true }
	:: atomic { T_READY && t_file == resuming && t_copy == dead && m_abort && link -> t_enter(aborted) }
	:: atomic { T_READY && t_own && t_file == running && !t_said && link -> m_running = true; t_said = true }
	:: atomic { T_READY && t_file == running && t_kept && link && !m_ask_source && !m_done -> m_ask_source = true }
	:: atomic { T_READY && t_file == running && t_kept && m_done && link -> t_kept = false }
	/* What the source asks. */
	:: atomic { T_READY && link && m_ask_target && t_file == prepared && !m_prepared -> m_ask_target = false; m_prepared = true }
	:: atomic { T_READY && link && m_ask_target && t_file == resuming && !m_resuming -> m_ask_target = false; m_resuming = true }
	:: atomic { T_READY && link && m_ask_target && t_file == running && !m_running -> m_ask_target = false; m_running = true }
	:: atomic { T_READY && link && m_ask_target && t_file == aborted && !m_aborted -> m_ask_target = false; m_aborted = true }
	od
}

/* What happens by itself: CRIU does as told, or ends when its phaul is gone; a phaul that died is started; links come back. */
proctype environment()
{
end:	do
	:: atomic { !s_up && s_criu -> s_criu_ends() }
	:: atomic { t_copy == half && t_told -> t_copy = runs; t_told = false; stale = ran_on }
	:: atomic { !t_up && t_copy == half && !t_told -> t_criu_ends() }
	:: atomic { !s_up && !s_fenced -> s_up = true; s_own = false; s_said = true }
	:: atomic { !t_up && !t_fenced -> t_up = true; t_own = false; t_said = true }
	:: atomic { !link -> link = true }
	od
}

/* `phaul resolve`, each after making sure that the other copy is dead. */
proctype operator()
{
end:	do
	/* The one case in which the two sides alone cannot know: the target began to resume, and nothing is left there. */
	:: atomic { S_READY && s_file == committed && t_up && t_disk == resuming && t_file == resuming && t_copy == dead ->
		decided = true; s_enter(aborted) }
	/* A host is fenced, that is off for good; the other side is told to go on. */
	:: atomic { operator_may && S_READY && s_file == committed && s_copy == firm ->
		operator_may = false; decided = true; t_fenced = true; t_up = false; t_copy = dead; t_told = false;
		s_enter(aborted) }
	:: atomic { operator_may && T_READY && t_file == prepared && t_copy == half ->
		operator_may = false; decided = true; s_fenced = true; s_up = false; s_criu = false; s_copy = dead;
		t_kept = false; t_enter(resuming) }
	/* phaul at the target is told to end: it gives up, durably. */
	:: atomic { operator_may && T_READY && t_file == prepared && t_copy == half ->
		operator_may = false; t_drop(); t_enter(aborted) }
	/* The host died before the decision was on disk: it is said again. */
	:: atomic { t_fenced && S_READY && s_file == committed -> s_enter(aborted) }
	od
}

inline source_host_crashes()
{
	if
	:: s_copy != dead -> s_copy = dead; excused = excused || EXCUSES_SOURCE_HOST
	:: s_copy != dead && !s_policy_off -> s_copy = runs; ran_on = true /* an engine starts it anew */
	:: else
	fi;
	s_up = false;
	s_criu = false;
	s_failed = false;
	s_undo = false;
	s_file = s_disk
}

inline target_host_crashes()
{
	t_up = false;
	t_told = false;
	t_released = true;
	t_file = t_disk;
	if
	:: t_copy == half || t_copy == runs -> t_copy = dead; excused = excused || (s_copy == dead) || (t_disk == running)
	:: else
	fi
}

proctype faults()
{
end:	do
	:: atomic { crashes && s_up -> crashes--; s_up = false; s_failed = false; s_undo = false }
	:: atomic { crashes && t_up -> crashes--; t_up = false }
	:: atomic { crashes && s_criu -> crashes--; s_criu_ends() }
	:: atomic { crashes && t_copy == half -> crashes--; t_criu_ends() }
	:: atomic { crashes && !s_fenced -> crashes--; source_host_crashes() }
	:: atomic { crashes && !t_fenced -> crashes--; target_host_crashes() }
	:: atomic { cuts && link -> cuts--; link = false;
		if
		:: skip
		:: m_begin = false; m_finish = false; m_commit = false; m_done = false; m_abort = false; m_prepared = false;
			m_resuming = false; m_running = false; m_aborted = false; m_ask_source = false; m_ask_target = false
		fi }
	:: atomic { losses && m_begin -> losses--; m_begin = false }
	:: atomic { losses && m_finish -> losses--; m_finish = false }
	:: atomic { losses && m_prepared -> losses--; m_prepared = false }
	:: atomic { losses && m_commit -> losses--; m_commit = false }
	:: atomic { losses && m_resuming -> losses--; m_resuming = false }
	:: atomic { losses && m_running -> losses--; m_running = false }
	:: atomic { losses && m_done -> losses--; m_done = false }
	:: atomic { losses && m_abort -> losses--; m_abort = false }
	:: atomic { losses && m_aborted -> losses--; m_aborted = false }
	:: atomic { losses && m_ask_source -> losses--; m_ask_source = false }
	:: atomic { losses && m_ask_target -> losses--; m_ask_target = false }
	od
}

#define NOT_TWICE (!(s_copy == runs && t_copy == runs))
#define NOT_LOST (!(s_copy == dead && (t_copy == none || t_copy == dead)) || excused || decided)
#define SAME (!stale || decided)
/* Not before the journal says `aborted`, on disk, after it once said `committed`. */
#define HOLDS (!(s_disk == committed && s_file == committed && s_copy == runs))
#define AGREE (decided || !(s_disk == aborted && (t_disk == resuming || t_disk == running)))
#define ENDED ((s_fenced || (s_file == s_disk && (s_disk == settled || s_disk == aborted))) && \
	(t_fenced || (t_file == t_disk && (t_disk == running || t_disk == aborted || (s_fenced && t_copy == dead)))) && \
	(s_disk != settled || t_fenced || (t_disk == running && !t_kept)) && \
	((s_copy == runs && t_copy != runs) || (t_copy == runs && s_copy == dead) || \
	 ((excused || decided) && s_copy == dead && t_copy == dead) || (excused && s_copy == dead && t_copy == none)))

/* CHECK_ONLY_... leaves one check, to see which promise a missing rule breaks. */
#if defined(CHECK_ONLY_TWICE) || defined(CHECK_ONLY_LOST) || defined(CHECK_ONLY_SAME) || defined(CHECK_ONLY_ENDED)
#define CHECK_ONLY
#endif

/* Sees every state; the branch of `timeout` is taken where nothing can happen any more. */
proctype monitor()
{
end:	do
#if !defined(CHECK_ONLY) || defined(CHECK_ONLY_TWICE)
	:: atomic { !NOT_TWICE -> assert(NOT_TWICE) }
#endif
#if !defined(CHECK_ONLY) || defined(CHECK_ONLY_LOST)
	:: atomic { !NOT_LOST -> assert(NOT_LOST) }
#endif
#if !defined(CHECK_ONLY) || defined(CHECK_ONLY_SAME)
	:: atomic { !SAME -> assert(SAME) }
#endif
#ifndef CHECK_ONLY
	:: atomic { !HOLDS -> assert(HOLDS) }
	:: atomic { !AGREE -> assert(AGREE) }
#endif
#if !defined(CHECK_ONLY) || defined(CHECK_ONLY_ENDED)
	:: atomic { timeout && !(ENDED) -> assert(ENDED) }
#endif
	od
}

init
{
	atomic {
#ifndef STRICT_HOST
		if :: operator_may = true :: skip fi;
#endif
		run source(); run target(); run environment(); run operator(); run faults(); run monitor()
	}
}

