package owner_test

import (
	"errors"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// A device is found under any name as long as it bears the switch's mark; a number of another
// namespace or boot says nothing.
func TestFind(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	for _, name := range []string{"mine", "plain", "theirs"} {
		ns.Run("ip", "tuntap", "add", "dev", name, "mode", "tap")
	}
	ns.Run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "end")
	ns.Run("ip", "link", "set", "mine", "alias", owner.Made("me"))
	ns.Run("ip", "link", "set", "theirs", "alias", owner.Made("you"))
	note := func(name string) (n port.Trace) {
		l, err := link.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		owner.Note(&n, l)
		return n
	}
	number := func(name string) string { return note(name).Number }
	mac := func(name string) string { return note(name).MAC }
	ns.Do(func() {
		for _, c := range []struct{ kind, name, last, number, mac, want string }{
			{"tap", "vm0", "", number("mine"), "", "mine"},
			{"", "vm0", "", number("mine"), "", "mine"},
			{"tap", "plain", "plain", number("mine"), "", "mine"},
			{"tap", "plain", "", number("theirs"), "", "plain"},
			{"tap", "vm0", "vm0", number("plain"), "", ""},
			{"tap", "vm0", "vm0", number("plain"), mac("plain"), "plain"}, // somebody took the mark off
			{"", "vm0", "vm0", number("plain"), mac("plain"), "plain"},
			{"tap", "vm0", "vm0", number("plain"), mac("mine"), ""},
			{"tap", "vm0", "vm0", number("theirs"), mac("theirs"), ""},
			{"tap", "vm0", "mine", "", "", "mine"},
			{"", "vm0", "mine", "", "", "mine"},
			{"tap", "vm0", "plain", "", "", "plain"}, // somebody took the mark off
			{"", "vm0", "plain", "", "", ""},
			{"tap", "vm0", "cable", "", "", ""},
			{"tap", "vm0", "theirs", "", "", ""},
			{"tap", "theirs", "theirs", "", "", "theirs"}, // a caller says whose it is
			{"tap", "mine", "", "7@another boot/1", "", "mine"},
			{"tap", "vm0", "", "x", "", ""},
		} {
			l, err := owner.Find("me", c.kind, c.name, port.Trace{Ifname: c.last, Number: c.number, MAC: c.mac})
			if l.Name != c.want || c.want == "" && !errors.Is(err, link.ErrNotFound) {
				t.Errorf("%+v: found %q, %v", c, l.Name, err)
			}
		}
	})
	// The same index there.
	var here string
	ns.Do(func() { here = number("mine") })
	elsewhere.Run("ip", "tuntap", "add", "dev", "other", "mode", "tap")
	elsewhere.Run("ip", "link", "set", "other", "alias", owner.Made("me"))
	elsewhere.Do(func() {
		if there := number("other"); there == here {
			t.Errorf("two devices have the number %s", here)
		}
		if l, err := owner.Find("me", "tap", "vm0", port.Trace{Number: here}); err == nil {
			t.Errorf("found %s by the number of another namespace's", l.Name)
		}
	})
}
