package setting

import (
	"fmt"
	"strconv"
	"time"
)

// Not is a setting whose flag says the opposite of its JSON: --learning off is
// "no_learning": true.
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

// Duration is a time.Duration that is written as text, such as 60s.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	text := string(b)
	if n, err := strconv.ParseUint(text, 10, 63); err == nil && n != 0 {
		return fmt.Errorf("%q has no unit; write %ss", text, text)
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a time; write one such as 60s, 5m or 250ms", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }
