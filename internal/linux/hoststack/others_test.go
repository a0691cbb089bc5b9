package hoststack_test

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/hoststack/hoststacktest"
	interfaces "github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// The switch's program stands before those of others that are there, and says so if one gets
// before it later.
func TestProgramsOfOthers(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Do(func() {
		l, err := interfaces.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		former := hoststacktest.Attach(t, l.Index, "vswitch_former", nil)
		there := hoststacktest.Attach(t, l.Index, "there", nil)
		defer there.Close()
		guard, err := hoststack.Shut("vm0", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer guard.Close()
		if got := strings.Join(hoststacktest.Names(t, l.Index), " "); got != "vswitch_former vswitch_shut there" {
			t.Errorf("the programs are %s", got)
		}
		if err := guard.Contested(); err == nil || !strings.Contains(err.Error(), "vswitch_former") {
			t.Errorf("beside a program of another switch: %v", err)
		}
		if err := former.Close(); err != nil {
			t.Fatal(err)
		}
		if why, err := guard.Overtaken(), guard.Contested(); why != "" || err != nil {
			t.Errorf("before the program of others: %q, %v", why, err)
		}
		before := hoststacktest.Attach(t, l.Index, "before", link.Head())
		if why := guard.Overtaken(); !strings.HasPrefix(why, `program "before" (id `) {
			t.Errorf("behind a program: %q", why)
		}
		if err := guard.Contested(); err != nil {
			t.Errorf("behind a program: %v", err)
		}
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		if why := guard.Overtaken(); why != "" {
			t.Errorf("first again: %q", why)
		}
	})
}

// A program that somebody detached is put back, before those of others, and is the Guard's again.
func TestDetached(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Do(func() {
		l, err := interfaces.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		guard, err := hoststack.Shut("vm0", l.Index, nil)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what, want string) {
			t.Helper()
			if got := strings.Join(hoststacktest.Names(t, l.Index), " "); got != want {
				t.Errorf("%s the programs are %q, want %q", what, got, want)
			}
		}
		for range 2 {
			if err := guard.Renew(); err != nil {
				t.Fatal(err)
			}
			check("untouched,", "vswitch_shut")
			hoststacktest.Detach(t, l.Index)
			other := hoststacktest.Attach(t, l.Index, "other", nil)
			if err := guard.Renew(); err != nil {
				t.Fatal(err)
			}
			check("renewed,", "vswitch_shut other")
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		check("after Close", "")
		if err := guard.Renew(); err != nil {
			t.Fatal(err)
		}
		check("closed,", "")
	})
}
