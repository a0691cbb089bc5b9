package porttest

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// Open opens a port of a kind in the calling thread's network namespace. It is closed
// when the test ends.
func Open[P port.Port](t testing.TB, k port.Kind, s port.Spec, trace *port.Trace) P {
	t.Helper()
	p, err := k.Open(s, trace)
	if err != nil {
		t.Fatalf("open %s: %v", s.Name, err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(P)
}

// Kind is a kind that a constructor made without an error.
func Kind(k port.Kind, err error) port.Kind {
	if err != nil {
		panic(err)
	}
	return k
}

// Refused expects Open to fail with one line that contains want, and to leave neither
// a device nor a trace. It returns the error.
func Refused(t testing.TB, k port.Kind, s port.Spec, want string) error {
	t.Helper()
	before := Devices(t)
	var trace port.Trace
	p, err := k.Open(s, &trace)
	if err == nil {
		p.Close()
		t.Fatalf("%+v opens", s)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%+v: %q, want one line with %q", s, err, want)
	}
	if !reflect.DeepEqual(trace, port.Trace{}) {
		t.Errorf("%+v: a trace is left: %+v", s, trace)
	}
	if after := Devices(t); after != before {
		t.Errorf("%+v: devices before %s, after %s", s, before, after)
	}
	return err
}

// MadeBefore expects a kind to know the device that its switch has made though no trace
// tells of it, as when the process was killed before it could note it; and to refuse the
// device of another switch, with words that name that switch, and to leave it in place.
// make makes the kind of a switch.
func MadeBefore(t testing.TB, make func(switchName string) port.Kind, s port.Spec) {
	t.Helper()
	before := Devices(t)
	mine, others := make("one"), make("two")
	open := func() (trace port.Trace) {
		t.Helper()
		Open[port.Port](t, mine, s, &trace).Close()
		if !trace.Created || trace.Before != nil {
			t.Errorf("trace %+v, want created", trace)
		}
		return trace
	}
	open()
	Refused(t, others, s, "belongs to switch one")
	// A record of a former process is no proof either.
	for _, trace := range []port.Trace{
		{Created: true, Ifname: s.Name},
		{Ifname: s.Name, Before: &port.DeviceSettings{MTU: 1500}},
	} {
		if err := others.Delete(s, trace); err != nil {
			t.Fatal(err)
		}
	}
	if err := mine.Delete(s, open()); err != nil {
		t.Fatal(err)
	}
	if after := Devices(t); after != before {
		t.Errorf("devices before %s, after %s", before, after)
	}
}

// Devices lists the interfaces of the calling thread's network namespace.
func Devices(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}

// Check expects the kind to take what is good, and to refuse what is bad on one line, in
// the settings themselves or by Check.
func Check(t testing.TB, k port.Kind, good, bad []port.Spec) {
	t.Helper()
	for _, s := range good {
		if _, err := (port.Catalog{Kinds: port.Kinds{k}}).Spec(s.Name, k.Name(), s.Patch()); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, s := range bad {
		if _, err := (port.Catalog{Kinds: port.Kinds{k}}).Spec(s.Name, k.Name(), s.Patch()); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
