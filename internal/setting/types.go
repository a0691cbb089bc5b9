package setting

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Not is a setting whose flag is the opposite of its JSON: --learning off is "no_learning":
// true.
type Not bool

// ReadFlag implements FlagReader.
func (n *Not) ReadFlag(text string) error {
	on, err := ParseBool(text)
	*n = Not(!on && text != "")
	return err
}

// FlagText implements FlagWriter.
func (Not) FlagText(v any) string {
	if v == true {
		return "off"
	}
	return "on"
}

// Values implements Enum, for the flag.
func (Not) Values() []string { return []string{"on", "off"} }

// OrNever is a time after which something happens, or Never. On the command line 0 means
// never, too.
type OrNever time.Duration

// Never is a time that never comes.
const Never OrNever = -1

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *OrNever) UnmarshalText(b []byte) error {
	switch string(b) {
	case "":
		*d = 0
		return nil
	case "0", "never":
		*d = Never
		return nil
	}
	v, err := parseDuration(string(b))
	if *d = OrNever(v); v == 0 && err == nil {
		*d = Never
	}
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d OrNever) MarshalText() ([]byte, error) {
	switch d {
	case 0:
		return nil, nil
	case Never:
		return []byte("never"), nil
	}
	return Duration(d).MarshalText()
}

// Addr is an IP address. The zero Addr means none.
type Addr struct{ netip.Addr }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Addr) UnmarshalText(b []byte) error {
	*a = Addr{}
	if len(b) == 0 {
		return nil
	}
	v, err := netip.ParseAddr(string(b))
	if err != nil {
		return fmt.Errorf("%q is not an IP address; write it as 192.0.2.1 or 2001:db8::1", b)
	}
	a.Addr = v
	return nil
}

// Duration is a time.Duration above 0, written as text such as 60s. A 0 would be taken for not set,
// and so for the default, which nobody who writes 0 means; see OrNever and OrNone.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = 0
		return nil
	}
	v, err := parseDuration(string(b))
	if err == nil && v == 0 {
		err = fmt.Errorf("%q is not possible; use a time above 0, such as 60s, 5m or 250ms", b)
	}
	*d = Duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) {
	if d == 0 {
		return nil, nil
	}
	return []byte(d.String()), nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// OrNone is a time.Duration written as text. 0 is none, which is also its default.
type OrNone time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *OrNone) UnmarshalText(b []byte) error {
	v, err := parseDuration(string(b))
	*d = OrNone(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d OrNone) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// parseDuration reads a time that is not negative.
func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseUint(text, 10, 63); err == nil && n != 0 {
		return 0, fmt.Errorf("%q has no unit; write %ss", text, text)
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%q is not a time; write one such as 60s, 5m or 250ms", text)
	}
	return v, nil
}
