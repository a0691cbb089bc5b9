package limits

import "math"

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
