// Package limits reads how many threads, open files and how much memory and address space the system
// lets this process have, and which limit decides. Go's runtime ends a program that cannot make a thread, so a daemon
// counts them in advance. What cannot be read counts as unlimited.
package limits

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Limit is the most that the process may have of something, less what others use.
type Limit struct {
	Most int
	Name string // the limit and where to raise it; one clause
}

// none means unlimited.
const none = math.MaxInt

// runtimeThreads is Go's own limit (debug.SetMaxThreads), less what the runtime uses itself
// on a large machine.
const runtimeThreads = 10000 - 512

// System locates the limits: it is the root of the file systems /proc and /sys.
type System struct {
	Root string // "" is the real root
}

// Threads returns the tightest limit of threads.
func (s System) Threads() Limit {
	least := Limit{runtimeThreads, fmt.Sprintf("a process has %d threads at most", runtimeThreads)}
	own := s.ownThreads()
	take := func(l Limit) {
		if l.Most != none && l.Most < least.Most {
			least = l
		}
	}
	for _, g := range s.cgroups("pids") {
		if most, ok := s.number(g, "pids.max"); ok {
			current, _ := s.number(g, "pids.current")
			take(Limit{most - max(current-own, 0), fmt.Sprintf("pids.max of the cgroup %s is %d; raise it (TasksMax= of the systemd unit, the pids limit of the container)", g, most)})
		}
	}
	if most, ok := s.userLimit(); ok {
		take(Limit{most - max(s.userThreads()-own, 0), fmt.Sprintf("the user may have %d threads (ulimit -u); raise that", most)})
	}
	all := s.allThreads()
	for _, name := range []string{"threads-max", "pid_max"} {
		if most, ok := s.number("/proc/sys/kernel", name); ok {
			take(Limit{most - max(all-own, 0), fmt.Sprintf("kernel.%s is %d; raise it by sysctl", name, most)})
		}
	}
	return least
}

// Files returns the limit of open files.
func Files() Limit {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Cur > math.MaxInt32 {
		return Limit{Most: none}
	}
	return Limit{int(r.Cur), fmt.Sprintf("a process may have %d open files (ulimit -n); raise that (LimitNOFILE= of the systemd unit)", r.Cur)}
}

// number reads a number from a file; ok is false if there is none, as in "max".
func (s System) number(dir, name string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimSpace(s.read(dir, name)))
	return n, err == nil
}

func (s System) read(elem ...string) string {
	b, _ := os.ReadFile(filepath.Join(s.Root, filepath.Join(elem...)))
	return string(b)
}

func (s System) ownThreads() int {
	n, _ := statusNumber(s.read("/proc/self/status"), "Threads:")
	return n
}

// statusNumber returns the first number of a line of /proc/PID/status.
func statusNumber(status, key string) (int, bool) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				return 0, false
			}
			n, err := strconv.Atoi(fields[0])
			return n, err == nil
		}
	}
	return 0, false
}

// userLimit returns RLIMIT_NPROC if it applies: it does not to processes with rights over the
// system.
func (s System) userLimit() (int, bool) {
	const rlimitNproc = 6 // on all architectures of Go's Linux port but MIPS and SPARC
	var r syscall.Rlimit
	if syscall.Getrlimit(rlimitNproc, &r) != nil || r.Cur > math.MaxInt32 {
		return 0, false
	}
	const sysAdmin, sysResource = 1 << 21, 1 << 24
	if strings.Join(strings.Fields(s.read("/proc/self/uid_map")), " ") == "0 0 4294967295" {
		for line := range strings.Lines(s.read("/proc/self/status")) {
			if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
				caps, _ := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
				if caps&(sysAdmin|sysResource) != 0 {
					return 0, false
				}
			}
		}
	}
	return int(r.Cur), true
}

// userThreads counts the threads of the process's user.
func (s System) userThreads() (n int) {
	uid, _ := statusNumber(s.read("/proc/self/status"), "Uid:")
	files, _ := filepath.Glob(filepath.Join(s.Root, "/proc/[0-9]*/status"))
	for _, file := range files {
		b, _ := os.ReadFile(file)
		if of, ok := statusNumber(string(b), "Uid:"); ok && of == uid {
			threads, _ := statusNumber(string(b), "Threads:")
			n += threads
		}
	}
	return n
}

// allThreads counts the threads of the system.
func (s System) allThreads() int {
	fields := strings.Fields(s.read("/proc/loadavg"))
	if len(fields) < 4 {
		return 0
	}
	_, total, _ := strings.Cut(fields[3], "/")
	n, _ := strconv.Atoi(total)
	return n
}
