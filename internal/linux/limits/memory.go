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

// AddressSpace returns how many bytes of address space are left for the process.
func (s System) AddressSpace() Limit {
	var r syscall.Rlimit
	taken, ok := statusNumber(s.read("/proc/self/status"), "VmSize:") // in KiB
	if syscall.Getrlimit(syscall.RLIMIT_AS, &r) != nil || r.Cur > math.MaxInt64 || !ok {
		return Limit{Most: none}
	}
	return Limit{
		int(r.Cur) - taken<<10,
		fmt.Sprintf("a process may have %d MiB of address space (ulimit -v); raise that, or have no such limit (LimitAS= of the systemd unit)", r.Cur>>20),
	}
}
