package limits

import (
	"fmt"
	"math"
	"syscall"
)

// Memory returns how many bytes the process's cgroups let it have. The kernel ends a process that
// takes more.
func (s System) Memory() Limit {
	least := Limit{Most: none}
	for _, g := range s.cgroups("memory") {
		for _, name := range []string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
			most, ok := s.number(g, name)
			if ok && most < least.Most && most < math.MaxInt64/2 { // version 1 writes a large number for none
				least = Limit{most, name + " of the cgroup " + g}
			}
		}
	}
	return least
}

// MemoryLeft returns how many bytes the limits of the process's cgroups leave it, with what others there
// use. Pages of files are not counted: the kernel takes them where it needs memory.
func (s System) MemoryLeft() Limit {
	least := Limit{Most: none}
	for _, g := range s.cgroups("memory") {
		for _, v := range []struct{ most, used, files string }{
			{"memory.max", "memory.current", ""}, {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_"},
		} {
			most, ok := s.number(g, v.most)
			used, known := s.number(g, v.used)
			if !ok || !known || most >= math.MaxInt64/2 {
				continue
			}
			stat := s.read(g, "memory.stat")
			for _, kind := range []string{"inactive_file", "active_file"} {
				n, _ := statusNumber(stat, v.files+kind+" ")
				used -= n
			}
			if left := most - max(used, 0); left < least.Most {
				least = Limit{left, fmt.Sprintf("%s of the cgroup %s is %d MiB", v.most, g, most>>20)}
			}
		}
	}
	return least
}

// KeptSpace is the address space, and the private memory, in bytes, that a process keeps free for Go's
// runtime. That takes 64 MiB at a time, and ends a program that gets none.
const KeptSpace = 256 << 20

// AddressSpace returns how many bytes of address space are left for the process.
func (s System) AddressSpace() Limit {
	return s.left(syscall.RLIMIT_AS, "VmSize:", "of address space (ulimit -v)", "LimitAS=")
}

// Data returns how many bytes of private memory, used or not, are left for the process.
func (s System) Data() Limit {
	return s.left(syscall.RLIMIT_DATA, "VmData:", "of data (ulimit -d)", "LimitDATA=")
}

// Heap returns the tighter one of the limits that Go's heap has to keep.
func (s System) Heap() Limit {
	space, data := s.AddressSpace(), s.Data()
	if data.Most < space.Most {
		return data
	}
	return space
}

// left returns what a resource limit leaves; taken is the line of /proc/self/status that has what is taken.
func (s System) left(resource int, taken, what, unit string) Limit {
	var r syscall.Rlimit
	kib, ok := statusNumber(s.read("/proc/self/status"), taken)
	if syscall.Getrlimit(resource, &r) != nil || r.Cur > math.MaxInt64 || !ok {
		return Limit{Most: none}
	}
	return Limit{
		int(r.Cur) - kib<<10,
		fmt.Sprintf("a process may have %d MiB %s; raise that, or have no such limit (%s of the systemd unit)", r.Cur>>20, what, unit),
	}
}
