package owner

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// bootID identifies this boot of the host; it is empty if the kernel does not tell.
var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// Number identifies an interface of the calling thread's namespace, under any name, until the host
// reboots; it is empty if the kernel cannot tell boots and namespaces apart. Another interface can
// have its index later, but does not have the mark of the switch.
func Number(index int) string {
	cookie, err := link.NetnsCookie()
	if err != nil || bootID() == "" {
		return ""
	}
	return fmt.Sprintf("%d@%s/%d", index, bootID(), cookie)
}

// IsNumber reports whether a number is that of the interface with this index.
func IsNumber(number string, index int) bool {
	digits, _, is := strings.Cut(number, "@")
	return is && digits == strconv.Itoa(index) && number == Number(index)
}

// Here reports whether a number is of this boot and of the calling thread's namespace.
func Here(number string) bool {
	_, is := here(number)
	return is
}

func here(number string) (index int, is bool) {
	digits, _, _ := strings.Cut(number, "@")
	index, err := strconv.Atoi(digits)
	return index, err == nil && IsNumber(number, index)
}

// Strays returns the interfaces of the switch named me in other network namespaces, see link.Strays.
func Strays(me string) ([]link.Stray, error) {
	return link.Strays(func(l link.Link) bool { return Marked(l, me) })
}

// MadeBy returns the interfaces in the calling thread's namespace that the switch named me made.
func MadeBy(me string) (made []link.Link, err error) {
	all, err := link.All()
	for _, l := range all {
		if l.Alias == Made(me) || unsigned(l, me) {
			made = append(made, l)
		}
	}
	return made, err
}

// Address is the hardware address with which the switch named me makes an interface of a name in the calling
// thread's namespace, where the kernel takes an address but no alias: with it the switch knows
// an interface that it was killed before it had marked. It lasts until the host reboots, and no other switch or host
// has it. It is nil if the kernel cannot tell boots and namespaces apart.
func Address(me, name string) net.HardwareAddr {
	cookie, err := link.NetnsCookie()
	if err != nil || bootID() == "" {
		return nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%s/%s", bootID(), cookie, me, name))
	sum[0] = sum[0]&^1 | 2 // of one station, administered locally
	return sum[:6]
}

// unsigned reports whether an interface is one that the switch named me made, but had no time to mark. It
// sets an interface up after that.
func unsigned(l link.Link, me string) bool {
	return l.Alias == "" && !l.Up && bytes.Equal(l.MAC[:], Address(me, l.Name))
}

// Note notes in t which interface is a port's.
func Note(t *port.Trace, l link.Link) {
	t.Ifname, t.Ifindex, t.Number, t.MAC = l.Name, l.Index, Number(l.Index), l.MACString()
}

// Noted reports whether t is of this very interface. Its number alone does not tell: somebody can
// make another one with the same index.
func Noted(l link.Link, t port.Trace) bool {
	return IsNumber(t.Number, l.Index) && t.MAC != "" && t.MAC == l.MACString()
}

// Find looks up the interface of a port of the switch named me, of which it noted t, also one that
// somebody renamed: by its number, then by the name that it was last seen with, then by the port's
// name. Another interface can have the number or the last name by now, so the mark of the switch must
// be there; one that is nobody's may have lost it, if it has the noted address, or, by its last name,
// the given kind.
func Find(me, kind, name string, t port.Trace) (link.Link, error) {
	if index, is := here(t.Number); is {
		if l, err := link.ByIndex(index); err == nil && (Marked(l, me) || Noted(l, t) && Check(l, me) == nil) {
			return l, nil
		}
	}
	if last := t.Ifname; last != "" && last != name {
		if l, err := link.ByName(last); err == nil && (Marked(l, me) || l.Kind == kind && Check(l, me) == nil) {
			return l, nil
		}
	}
	return link.ByName(name)
}

// Counts reports whether t, of a port of the switch named me, is of l, not of another interface that had its
// name. Somebody may have taken the mark off.
func Counts(l link.Link, me string, t port.Trace) bool {
	return Marked(l, me) || !t.IfMarked && Noted(l, t)
}

// Marked reports whether an interface has the mark of the switch named me.
func Marked(l link.Link, me string) bool {
	m, is := Parse(l.Alias)
	return is && m.Switch == me
}
