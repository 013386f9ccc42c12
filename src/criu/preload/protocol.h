/* What criu/preload.c tells libphaul-criu.so through the environment of CRIU. */
#pragma once

#define PRELOAD_LIBRARY "libphaul-criu.so"

#define PRELOAD_VERSION "PHAUL_CRIU_VERSION"	  /* of that CRIU: major * 10000 + minor * 100 + sublevel */
#define PRELOAD_STATUS_NAME "criu-preload.status" /* in the work directory */
#define PRELOAD_STATUS "PHAUL_CRIU_STATUS"	  /* file that gets a line per kind of action */
#define PRELOAD_RUN_SUFFIX                                                                                             \
	".run" /* behind the former: file with the ids of CRIU's run, a line each, the last one counts */
#define PRELOAD_RUN_MARKER "CRIU run id = " /* before the id, there as in CRIU's log */
#define PRELOAD_HIDE                                                                                                   \
	"PHAUL_CRIU_HIDDEN" /* file with the hidden ranges; may appear later than CRIU. An older library, which would not
					      * open the file of the flags first, knows another name and does nothing */
#define PRELOAD_FLAGS_SUFFIX ".flags"	   /* behind the former: file with the flags of mappings, if there is one */
#define PRELOAD_LIMITS "PHAUL_CRIU_LIMITS" /* "1": answer refused prlimit calls from /proc/PID/limits */

/* The CRIU versions whose use of PAGEMAP_SCAN and of /proc/PID/smaps was read and tested with hidden ranges. */
#define PRELOAD_VERSION_FIRST 40100
#define PRELOAD_VERSION_LAST 40299

/* Between phaul-criu-hook and criu/held.c. */
#define HOOK_SOCKET "hook.socket"		   /* beside the name that the hook is run under */
#define HOOK_SETTINGS "net-settings"		   /* likewise: lines DIRECTORY/NAME=VALUE */
#define HOOK_SETTINGS_FAILED "net-settings.failed" /* those that could not be set */
#define HOOK_STAGE_NAMESPACES "post-setup-namespaces"
#define HOOK_STAGE_HELD "post-restore"	 /* tasks exist and are stopped, the network is locked */
#define HOOK_STAGE_RELEASED "pre-resume" /* CRIU lets them go, whatever comes */
#define HOOK_STAGE_RUNNING "post-resume" /* they run */
#define HOOK_GO '1'
