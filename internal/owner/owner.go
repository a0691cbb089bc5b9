// Package owner marks network interfaces with the switch that they belong to. The mark
// is the interface's alias, which `ip link` shows and every switch of the host reads. A
// call acts on the calling thread's network namespace; any goroutine may call it.
package owner

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vswitch/vswitch/internal/link"
)

// Mark is what an alias says.
type Mark struct {
	// Switch is the name of the switch. It is empty in the marks of earlier versions,
	// which left it out.
	Switch string

	// Adopted: the interface was there before the switch took it.
	Adopted bool

	// Before is the alias that an adopted interface had.
	Before string
}

const (
	prefix  = "vswitch "
	adopted = " adopted"
	was     = ": "

	// maxAlias is the length of an alias in bytes (IFALIASZ-1).
	maxAlias = 255
)

// Made is the alias of an interface that a switch made.
func Made(switchName string) string { return Mark{Switch: switchName}.String() }

// String returns the alias. It leaves out Before where an alias has no room for it.
func (m Mark) String() string {
	text := prefix + m.Switch
	if m.Adopted {
		text += adopted
		if m.Before != "" && len(text)+len(was)+len(m.Before) <= maxAlias {
			text += was + m.Before
		}
	}
	return text
}

// Parse reads an alias and reports whether it is a mark.
func Parse(alias string) (m Mark, ok bool) {
	text, ok := strings.CutPrefix(alias, prefix)
	if !ok {
		return Mark{}, false
	}
	name, rest, more := strings.Cut(text, " ")
	m.Switch = name
	if !more {
		return m, true
	}
	rest, ok = strings.CutPrefix(" "+rest, adopted)
	if !ok || name == "" {
		return Mark{}, false // somebody's own words
	}
	m.Adopted = true
	if rest == "" {
		return m, true
	}
	m.Before, ok = strings.CutPrefix(rest, was)
	return m, ok
}

// Check returns an error where l belongs to another switch than the one called me. It
// says whose the interface is, and how to get it from there.
func Check(l link.Link, me string) error {
	m, ok := Parse(l.Alias)
	if !ok || m.Switch == "" || m.Switch == me {
		return nil
	}
	return fmt.Errorf("%s belongs to switch %s; remove it there first with `vswitch --name %s del-port %s`, or, if that switch is gone for good, free the device with `ip link set %s alias \"\"`",
		l.Name, m.Switch, m.Switch, l.Name, l.Name)
}

// Makes reports whether the switch called me made l. noted says that the switch has a
// record of it, which is believed only where the alias does not contradict it: the
// device may be another one of the same name.
func Makes(l link.Link, me string, noted bool) bool {
	m, ok := Parse(l.Alias)
	if !ok || m.Adopted {
		return false
	}
	return m.Switch == me || m.Switch == "" && noted
}

// Sign completes the mark of an interface that the switch called me made, where an
// earlier version left the name out. An alias that somebody wrote since stays.
func Sign(l link.Link, me string) error {
	if m, ok := Parse(l.Alias); !ok || m.Switch != "" {
		return nil
	}
	return set(l, Made(me))
}

// Adopt marks an interface that was there before the switch called me, and returns the
// alias that it had before any mark of this switch: noted, where the mark lacks it.
func Adopt(l link.Link, me, noted string) (before string, err error) {
	before = l.Alias
	if m, ok := Parse(l.Alias); ok && m.Switch == me {
		before = cmp.Or(m.Before, noted)
	}
	// Only a TAP can have been made by a switch: others need no word about it.
	m := Mark{Switch: me, Adopted: l.Kind == "tap" || before != "", Before: before}
	return before, set(l, m.String())
}

// Release gives an adopted interface the alias back that it had, unless the alias is no
// mark of the switch called me any more.
func Release(l link.Link, me, before string) error {
	m, ok := Parse(l.Alias)
	if !ok || m.Switch != me {
		return nil
	}
	return set(l, cmp.Or(before, m.Before))
}

// set is SetAlias where that changes something. Who may use a device without the right
// to configure it, such as the owner of a TAP, leaves it unmarked.
func set(l link.Link, alias string) error {
	if l.Alias == alias {
		return nil
	}
	if err := l.SetAlias(alias); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
