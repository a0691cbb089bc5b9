package port

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Rate is a limit per second, of frames or of bits. The zero Rate is no limit.
type Rate struct {
	PerSecond uint64
	Bits      bool // PerSecond counts bits, else frames
}

// rateUnits are the units that ParseRate accepts, as tc(8) writes them. A unit that is a
// suffix of another comes after it.
var rateUnits = []struct {
	suffix string
	factor float64
	bits   bool
}{
	{"kpps", 1e3, false}, {"mpps", 1e6, false}, {"pps", 1, false},
	{"kbit", 1e3, true}, {"mbit", 1e6, true}, {"gbit", 1e9, true}, {"bit", 1, true},
}

// ParseRate parses a rate such as 100pps or 10mbit; "0", "off" and "" mean no limit.
func ParseRate(text string) (Rate, error) {
	switch text {
	case "", "0", "off":
		return Rate{}, nil
	}
	n, bits, ok := readRate(text)
	switch {
	case ok && n >= 1 && n < endOfRates:
		return Rate{PerSecond: uint64(n), Bits: bits}, nil
	case ok && bits:
		return Rate{}, fmt.Errorf("%q is out of range; use 1bit to 4000gbit, or off for no limit", text)
	case ok:
		return Rate{}, fmt.Errorf("%q is out of range; use 1pps to 4000000mpps, or off for no limit", text)
	}
	if near := nearRate(text); near != "" {
		return Rate{}, fmt.Errorf("%q is not a rate; did you mean %s? Write frames as 100pps, bits as 10mbit, or off", text, near)
	}
	return Rate{}, fmt.Errorf("%q is not a rate; write frames as 100pps, bits as 10mbit, or off", text)
}

// endOfRates is more than each rate, in frames or bits a second.
const endOfRates = math.MaxUint32 * 1000

// number matches a number as users write it.
var number = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)?$`)

// readRate reads a number and a unit. The number may be out of range for a rate.
func readRate(text string) (perSecond float64, bits, ok bool) {
	text = strings.ToLower(text)
	for _, u := range rateUnits {
		digits, is := strings.CutSuffix(text, u.suffix)
		if !is {
			continue
		}
		if !number.MatchString(digits) {
			return 0, false, false
		}
		n, _ := strconv.ParseFloat(digits, 64) // infinite if it is too long
		return n * u.factor, u.bits, true
	}
	return 0, false, false
}

// otherRate matches rates as others write them: 100M, 100Mbit/s, 100 Mbps, 1G, 10k.
var otherRate = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kmg]?)(b|bit|bits|bps)?(/s|/sec)?$`)

// nearRate returns the rate that was probably meant, in the form that ParseRate accepts.
func nearRate(text string) string {
	m := otherRate.FindStringSubmatch(strings.ToLower(text))
	if m == nil || m[2] == "" && m[3] == "" && m[4] == "" {
		return "" // a bare number may be frames or bits
	}
	near := m[1] + m[2] + "bit"
	if n, _, ok := readRate(near); !ok || n < 1 || n >= endOfRates {
		return ""
	}
	return near
}

// String writes the rate in the form that ParseRate accepts, with the largest exact unit.
func (r Rate) String() string {
	if r.PerSecond == 0 {
		return "off"
	}
	text := ""
	best := uint64(0)
	for _, u := range rateUnits {
		if f := uint64(u.factor); u.bits == r.Bits && r.PerSecond%f == 0 && f > best {
			best, text = f, strconv.FormatUint(r.PerSecond/f, 10)+u.suffix
		}
	}
	return text
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRate(string(b))
	return err
}
