package guard_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

// A VM's question who has an address is dropped behind the guard, by a limit or because its
// neighbours are isolated from it. The switch asks them, and binds the address only if nobody objects.
func TestUnheard(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(l *lab){
		"storm": func(l *lab) { l.sw.Ctl(l, "set-port vm0 --storm-multicast 1pps") },
		"isolated": func(l *lab) {
			for _, s := range stations {
				l.sw.Ctl(l, "set-port %s --isolated", s.port)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, kindOf("tap"))
			l.set("A", "--guard-learn none --guard-limit 64")
			prepare(l)
			// asked returns an address that A has asked for in vain, now that the switch asks.
			next := 0
			asked := func() string {
				for end := time.Now().Add(time.Minute); time.Now().Before(end); {
					const several = 3
					first := next + 1
					for range several {
						next++
						l.put("A", solicitation(fmt.Sprintf("fe80::77:%x", next)))
					}
					for {
						b, err := l.guests["V"].Recv(3 * time.Second)
						if err != nil {
							break
						}
						if target := targetOf(b); target >= first && target <= next && port.MACFrom(b[6:]) != macA {
							return fmt.Sprintf("fe80::77:%x", target)
						}
					}
				}
				t.Fatal("the switch never asks")
				return ""
			}
			state := func(a string) string {
				all := l.list("vm0")
				if i := slices.IndexFunc(all, func(b binding) bool { return b.Address == a }); i >= 0 {
					return all[i].State
				}
				return "none"
			}
			free := asked()
			eventually(t, free+" is bound", func() bool { return state(free) == "bound" })
			for range 5 { // V's answer may be late on a busy machine
				taken := asked()
				l.put("V", Eth(allNodes, macV, tIPv6, ICMPv6(taken, "ff02::1", 136, ND(taken, LinkLayer(2, macV)...))))
				eventually(t, taken+" is decided", func() bool { return state(taken) != "tentative" })
				if state(taken) == "none" {
					return
				}
			}
			t.Error("an address is bound though V objects")
		})
	}
}

// targetOf returns the last 16 bits of the address that a frame of duplicate address detection
// asks for, or 0.
func targetOf(b []byte) int {
	if len(b) < 78 || binary.BigEndian.Uint16(b[12:]) != tIPv6 || b[54] != 135 || b[74] != 0 || b[75] != 0x77 {
		return 0
	}
	return int(binary.BigEndian.Uint16(b[76:]))
}
