package shape

import (
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestShape(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Run("ip", "tuntap", "add", "dev", "mq0", "mode", "tap", "multi_queue")
	for _, name := range []string{"vm0", "mq0"} {
		ns.Run("ip", "link", "set", name, "up")
		for _, direct := range []bool{true, false} {
			ns.Do(func() {
				l, err := link.ByName(name)
				if err != nil {
					t.Fatal(err)
				}
				if direct {
					if err := l.SetNoQueue(); err != nil {
						t.Fatal(err)
					}
				} else {
					ns.Run("tc", "qdisc", "replace", "dev", name, "root", "pfifo")
					ns.Run("tc", "qdisc", "del", "dev", name, "root")
				}
				before := kindOf(ns.Run("tc", "qdisc", "show", "dev", name, "root"))
				for _, c := range []struct {
					bits  uint64
					words []string
				}{
					{1e9, []string{"rate 1Gbit", "ceil 1Gbit"}},
					{100e6, []string{"rate 100Mbit"}},
					{40e9, []string{"rate 40Gbit"}},
				} {
					r, err := Set(l.Index, c.bits)
					if err != nil || !r.On {
						t.Fatalf("%+v, %v", r, err)
					}
					if read, err := Read(l.Index); err != nil || !read.On || read.handle != r.handle {
						t.Errorf("shaped: %+v, want %+v, error %v", read, r, err)
					}
					class := ns.Run("tc", "class", "show", "dev", name)
					for _, w := range c.words {
						if !strings.Contains(class, w) {
							t.Errorf("%s: the class has %s", w, class)
						}
					}
				}
				if r, err := Set(l.Index, leastFair-1); err == nil || !strings.Contains(err.Error(), "10mbit") {
					t.Errorf("a low rate: %+v, %v", r, err)
				}
				if err := Lift(l.Index); err != nil {
					t.Error(err)
				}
				if err := Remove(l.Index); err != nil {
					t.Error(err)
				}
				if after := kindOf(ns.Run("tc", "qdisc", "show", "dev", name, "root")); after != before {
					t.Errorf("%s has %s in place of %s", name, after, before)
				}
				// What others put there stays.
				ns.Run("tc", "qdisc", "replace", "dev", name, "root", "handle", "1:", "tbf", "rate", "10mbit", "burst", "10k", "latency", "50ms")
				if r, err := Set(l.Index, 1e9); err == nil || !strings.Contains(err.Error(), "tbf") {
					t.Errorf("%+v, %v", r, err)
				}
				if err := Remove(l.Index); err != nil {
					t.Error(err)
				}
				if r, err := link.ReadRoot(l.Index); err != nil || r.Kind != "tbf" {
					t.Errorf("%+v, %v", r, err)
				}
				ns.Run("tc", "qdisc", "del", "dev", name, "root")
			})
		}
	}
	ns.Do(func() {
		if _, err := Set(9999, 1e9); err == nil {
			t.Error("an interface that is not there is shaped")
		}
		if err := Remove(9999); err != nil {
			t.Error(err)
		}
	})
}

// kindOf returns the kind of discipline that tc shows.
func kindOf(shown string) string { return strings.Fields(shown)[1] }
