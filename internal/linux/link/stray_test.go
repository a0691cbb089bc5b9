package link_test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// An interface is found in the namespace to which it was moved, without a right to enter that.
func TestStrays(t *testing.T) {
	t.Parallel()
	ns, there := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	there.Run("ip", "tuntap", "add", "dev", "own", "mode", "tap")
	strays := func() (all []link.Stray) {
		t.Helper()
		var err error
		ns.Do(func() { all, err = link.Strays(func(l link.Link) bool { return l.Kind == "tap" }) })
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if got := strays(); len(got) != 0 {
		t.Errorf("of a namespace that has nothing of this one: %+v", got)
	}
	var was link.Link
	ns.Do(func() { was, _ = link.ByName("vm0") })
	ns.Run("ip", "link", "set", "vm0", "netns", there.Path(), "name", "vm9")
	var moved *link.Stray
	for _, s := range strays() {
		if s.Link.Name == "vm9" {
			moved = &s
		}
	}
	if moved == nil || moved.MAC != was.MAC {
		t.Fatalf("moved: %+v, was %+v", moved, was)
	}
	ns.Do(func() {
		if got := moved.Place.Name(); got != there.Name {
			t.Errorf("the namespace is %q, want %q", got, there.Name)
		}
		if err := moved.Do(func(l link.Link) error { return l.SetAlias("found") }); err != nil {
			t.Error(err)
		}
	})
	for _, s := range strays() {
		if s.Link.Name == "vm9" && s.Alias != "found" {
			t.Errorf("there it is %+v", s)
		}
	}
}
