package limits

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// system makes a System of files.
func system(t *testing.T, files map[string]string) System {
	t.Helper()
	s := System{Root: t.TempDir()}
	for name, text := range files {
		path := filepath.Join(s.Root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// root is a process with 7 threads that may everything.
const root = "Name:\tvswitch\nUid:\t0\t0\t0\t0\nThreads:\t7\nCapEff:\t000001ffffffffff\n"

func TestThreads(t *testing.T) {
	const all = "         0          0 4294967295\n"
	for name, test := range map[string]struct {
		files map[string]string
		most  int
		says  string
	}{
		"nothing to read": {map[string]string{"/proc/self/status": root, "/proc/self/uid_map": all}, runtimeThreads, "a process has"},
		"cgroup v2": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/self/cgroup": "0::/a.slice/b.service\n",
			"/sys/fs/cgroup/a.slice/b.service/pids.max": "40\n", "/sys/fs/cgroup/a.slice/b.service/pids.current": "10\n",
			"/sys/fs/cgroup/a.slice/pids.max": "max\n", "/sys/fs/cgroup/a.slice/pids.current": "100\n",
		}, 37, "/a.slice/b.service is 40"},
		"the cgroup above": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/self/cgroup": "0::/a.slice/b.service\n",
			"/sys/fs/cgroup/a.slice/b.service/pids.max": "max\n", "/sys/fs/cgroup/a.slice/b.service/pids.current": "7\n",
			"/sys/fs/cgroup/a.slice/pids.max": "120\n", "/sys/fs/cgroup/a.slice/pids.current": "100\n",
		}, 27, "cgroup/a.slice is 120"},
		"cgroup v1": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/self/cgroup": "9:name=systemd:/\n8:pids:/pod\n0::/\n",
			"/sys/fs/cgroup/pids/pod/pids.max": "40\n", "/sys/fs/cgroup/pids/pod/pids.current": "7\n",
		}, 40, "/pod is 40"},
		"a container's own root": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/self/cgroup": "0::/\n",
			"/sys/fs/cgroup/pids.max": "100\n", "/sys/fs/cgroup/pids.current": "60\n",
		}, 47, "is 100"},
		"in ip netns exec": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/self/cgroup": "0::/b.service\n",
			"/proc/1/root/sys/fs/cgroup/b.service/pids.max": "40\n", "/proc/1/root/sys/fs/cgroup/b.service/pids.current": "10\n",
		}, 37, "/b.service is 40"},
		"the system": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/loadavg": "0.1 0.2 0.3 2/907 4711\n",
			"/proc/sys/kernel/threads-max": "1000\n", "/proc/sys/kernel/pid_max": "32768\n",
		}, 100, "threads-max is 1000"},
		"few numbers": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/loadavg": "0.1 0.2 0.3 2/907 4711\n",
			"/proc/sys/kernel/threads-max": "100000\n", "/proc/sys/kernel/pid_max": "1907\n",
		}, 1007, "pid_max is 1907"},
		"more than may be": {map[string]string{
			"/proc/self/status": root, "/proc/self/uid_map": all, "/proc/self/cgroup": "0::/\n",
			"/sys/fs/cgroup/pids.max": "5\n", "/sys/fs/cgroup/pids.current": "60\n",
		}, -48, "is 5"},
		"nonsense": {map[string]string{
			"/proc/self/status": "Threads:\n" + root, "/proc/self/uid_map": all, "/proc/self/cgroup": "::::\n\n8\n0::/\n", "/proc/loadavg": "x\n",
			"/sys/fs/cgroup/pids.max": "many\n",
		}, runtimeThreads, "a process has"},
	} {
		t.Run(name, func(t *testing.T) {
			s := system(t, test.files)
			l := s.Threads()
			if l.Most != test.most || !strings.Contains(l.Name, test.says) || strings.Contains(l.Name, "\n") {
				t.Errorf("%+v, want %d and %q", l, test.most, test.says)
			}
		})
	}
}

func TestThreadsOfAUser(t *testing.T) {
	mine := "Uid:\t5\t5\t5\t5\nThreads:\t7\nCapEff:\t0000000000000000\n"
	s := system(t, map[string]string{
		"/proc/self/status": mine, "/proc/10/status": mine,
		"/proc/11/status": "Uid:\t5\t5\t5\t5\nThreads:\t3\n",
		"/proc/12/status": "Uid:\t6\t6\t6\t6\nThreads:\t1000\n",
	})
	if n := s.userThreads(); n != 10 {
		t.Errorf("%d threads, want 10", n)
	}
	if _, ok := s.userLimit(); !ok {
		t.Skip("no limit of threads (ulimit -u) here")
	}
	for _, uids := range []string{"0 100000 65536", "0 0 4294967295"} {
		all := system(t, map[string]string{"/proc/self/status": root, "/proc/self/uid_map": uids})
		if _, bound := all.userLimit(); bound != (uids != "0 0 4294967295") {
			t.Errorf("root of the user namespace %s is bound: %v", uids, bound)
		}
	}
}

func TestFiles(t *testing.T) {
	if l := Files(); l.Most < 16 {
		t.Errorf("%+v", l)
	}
	if l := (System{}).Threads(); l.Most < 1 || l.Name == "" {
		t.Errorf("of this machine: %+v", l)
	}
}

func TestMemory(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		most  int
		says  string
	}{
		"nothing to read": {nil, none, ""},
		"cgroup v2": {map[string]string{
			"/proc/self/cgroup": "0::/a.slice/b.service\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "300\n",
			"/sys/fs/cgroup/a.slice/b.service/memory.high": "max\n", "/sys/fs/cgroup/a.slice/memory.max": "400\n",
		}, 300, "memory.max of the cgroup /sys/fs/cgroup/a.slice/b.service"},
		"the cgroup above": {map[string]string{
			"/proc/self/cgroup": "0::/a.slice/b.service\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
			"/sys/fs/cgroup/a.slice/memory.high": "200\n", "/sys/fs/cgroup/a.slice/memory.max": "400\n",
		}, 200, "memory.high of the cgroup /sys/fs/cgroup/a.slice"},
		"cgroup v1": {map[string]string{
			"/proc/self/cgroup": "9:name=systemd:/\n8:memory:/pod\n7:pids:/\n", "/sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "100\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 100, "memory.limit_in_bytes"},
		"cgroup v1 without a limit": {map[string]string{
			"/proc/self/cgroup": "8:memory:/\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, none, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if l := system(t, test.files).Memory(); l.Most != test.most || !strings.HasPrefix(l.Name, test.says) {
				t.Errorf("%+v, want %d by %q", l, test.most, test.says)
			}
		})
	}
}

func TestMemoryLeft(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		left  int
		says  string
	}{
		"nothing to read": {nil, none, ""},
		"no limit":        {map[string]string{"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "max\n", "/sys/fs/cgroup/a/memory.current": "5\n"}, none, ""},
		"cgroup v2": {map[string]string{
			"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "3000000\n", "/sys/fs/cgroup/a/b/memory.current": "1000000\n",
			"/sys/fs/cgroup/a/b/memory.stat": "anon 7\ninactive_file 200000\nactive_file 30000\n",
			"/sys/fs/cgroup/a/memory.max":    "9000000\n", "/sys/fs/cgroup/a/memory.current": "1000000\n",
		}, 2230000, "memory.max of the cgroup /sys/fs/cgroup/a/b is 2 MiB"},
		"the cgroup above": {map[string]string{
			"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "3000000\n", "/sys/fs/cgroup/a/b/memory.current": "1000000\n",
			"/sys/fs/cgroup/a/memory.max": "9000000\n", "/sys/fs/cgroup/a/memory.current": "8500000\n",
		}, 500000, "memory.max of the cgroup /sys/fs/cgroup/a is 8 MiB"},
		"cgroup v1": {map[string]string{
			"/proc/self/cgroup": "8:memory:/pod\n", "/sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "3000000\n", "/sys/fs/cgroup/memory/pod/memory.usage_in_bytes": "1000000\n",
			"/sys/fs/cgroup/memory/pod/memory.stat":       "inactive_file 1\nactive_file 1\ntotal_inactive_file 200000\ntotal_active_file 30000\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "/sys/fs/cgroup/memory/memory.usage_in_bytes": "8\n",
		}, 2230000, "memory.limit_in_bytes of the cgroup /sys/fs/cgroup/memory/pod is 2 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			if l := system(t, test.files).MemoryLeft(); l.Most != test.left || l.Name != test.says {
				t.Errorf("%+v, want %d by %q", l, test.left, test.says)
			}
		})
	}
}

// What is left of the limits of the address space and of private memory is counted, and the tighter one
// decides. The test's own limits are such that it cannot reach them.
func TestHeap(t *testing.T) {
	lower := func(resource int, to uint64) (set uint64) {
		var former syscall.Rlimit
		if err := syscall.Getrlimit(resource, &former); err != nil {
			t.Fatal(err)
		}
		limit := syscall.Rlimit{Cur: min(former.Max, to), Max: former.Max}
		if err := syscall.Setrlimit(resource, &limit); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Setrlimit(resource, &former) })
		return limit.Cur
	}
	s := system(t, map[string]string{"/proc/self/status": "VmPeak:\t 9000 kB\nVmSize:\t    8192 kB\nVmData:\t 2048 kB\n"})
	space := lower(syscall.RLIMIT_AS, 1<<50)
	if got := s.AddressSpace(); got.Most != int(space)-8<<20 || !strings.Contains(got.Name, "ulimit -v") || s.Heap() != got {
		t.Errorf("%+v; of the heap %+v", got, s.Heap())
	}
	data := lower(syscall.RLIMIT_DATA, 1<<49)
	if got := s.Data(); got.Most != int(data)-2<<20 || !strings.Contains(got.Name, "ulimit -d") || s.Heap() != got {
		t.Errorf("%+v; of the heap %+v", got, s.Heap())
	}
	if got := system(t, nil).Heap(); got.Most != none {
		t.Errorf("without /proc it is %+v", got)
	}
}
