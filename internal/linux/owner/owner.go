// Package owner marks network interfaces with the name of the switch that owns them. The
// mark is the interface's alias, which `ip link` shows and every switch on the host reads.
// A call acts on the calling thread's network namespace; any goroutine may call it.
package owner

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// Mark is the content of an alias.
type Mark struct {
	// Switch is the name of the switch. Earlier versions left it out of their marks; there
	// it is empty.
	Switch string

	// Adopted: the interface was there before the switch took it.
	Adopted bool

	// Before is the alias that an adopted interface had before.
	Before string
}

const (
	prefix  = "vswitch "
	adopted = " adopted"
	was     = ": "

	// maxAlias is the length of an alias in bytes (IFALIASZ-1).
	maxAlias = 255
)

// Made returns the alias of an interface that a switch made.
func Made(switchName string) string { return Mark{Switch: switchName}.String() }

// String returns the alias. It leaves Before out if an alias has no room for it.
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
		return Mark{}, false // a user wrote it
	}
	m.Adopted = true
	if rest == "" {
		return m, true
	}
	if m.Before, ok = strings.CutPrefix(rest, was); !ok || m.Before == "" {
		return Mark{}, false
	}
	return m, true
}

// Check returns an error if l belongs to a switch other than the one named me. The error
// says which switch owns the interface and how to free it.
func Check(l link.Link, me string) error {
	m, ok := Parse(l.Alias)
	if !ok || m.Switch == "" || m.Switch == me {
		return nil
	}
	return fmt.Errorf("%s belongs to switch %s; remove it there first with `vswitch --name %s del-port %s`, or, if that switch is gone for good, free the device with `ip link set %s alias \"\"`",
		l.Name, m.Switch, m.Switch, l.Name, l.Name)
}

// Makes reports whether the switch named me made l, for a port of which it noted t. The mark says
// so. A switch that was killed before it had marked l knows it by its Address. If somebody took the
// mark off, the note counts, if it is of this very device: another one may have its name by now.
func Makes(l link.Link, me string, t port.Trace) bool {
	if t.Created && t.Ifindex == l.Index || unsigned(l, me) {
		return true
	}
	m, ok := Parse(l.Alias)
	if !ok {
		return t.Created && Noted(l, t)
	}
	return !m.Adopted && (m.Switch == me || m.Switch == "" && t.Created)
}

// Sign marks an interface that this switch made with the name me, if an earlier version left that out,
// or somebody cleared the alias. An alias that somebody wrote since then stays.
func Sign(l link.Link, me string) error {
	if m, ok := Parse(l.Alias); l.Alias != "" && (!ok || m.Switch != "") {
		return nil
	}
	return set(l, Made(me))
}

// Adopt marks an interface that existed before the switch named me took it. It returns the
// alias from before any mark of this switch: that in the mark, or noted if it has none. It calls
// keep with that alias before it changes it. Of switches that adopt it at the same moment one does; the
// others get the error of Check.
func Adopt(l link.Link, me, noted string, keep func(before string)) (before string, err error) {
	before = l.Alias
	if m, ok := Parse(l.Alias); ok && m.Switch == me {
		before = cmp.Or(m.Before, noted)
	} else {
		defer alone()()
		if l, err = link.ByIndex(l.Index); err != nil {
			return "", err
		}
		if err := Check(l, me); err != nil {
			return "", err
		}
		before = l.Alias
	}
	keep(before)
	return before, set(l, Mark{Switch: me, Adopted: true, Before: before}.String())
}

// alone keeps other switches in the thread's network namespace from adopting until release is
// called. Anybody can hold the lock, so it is not waited for long.
func alone() (release func()) {
	const most = 100 * time.Millisecond
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		f, err := flock.Open("/proc/thread-self/ns/net", os.O_RDONLY, 0)
		switch {
		case err == nil:
			return func() { _ = f.Close() }
		case !errors.Is(err, flock.ErrHeld) || time.Since(began) > most:
			return func() {}
		}
	}
}

// Release restores the alias that an adopted interface had, unless its alias is no longer
// a mark of the switch named me.
func Release(l link.Link, me, before string) error {
	m, ok := Parse(l.Alias)
	if !ok || m.Switch != me {
		return nil
	}
	return set(l, cmp.Or(before, m.Before))
}

// set calls SetAlias if that changes something. A process that may use a device but not
// configure it, such as the owner of a TAP, leaves it unmarked.
func set(l link.Link, alias string) error {
	if l.Alias == alias {
		return nil
	}
	if err := l.SetAlias(alias); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
