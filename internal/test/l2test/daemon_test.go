package l2test

import (
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// Most of these tests wait for the timers of protocols, so more of them run at a time than there
// are CPUs, unless -parallel says otherwise.
func TestMain(m *testing.M) {
	flag.Parse()
	parallel := flag.Lookup("test.parallel")
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f == parallel })
	if !set {
		_ = parallel.Value.Set(strconv.Itoa(2 * runtime.NumCPU()))
	}
	daemontest.Main(m)
}

// daemon is a vswitch of a test. Settings are made by the command line, and what is
// polled is read by the API.
type daemon struct {
	*daemontest.Daemon
	t testing.TB
}

// startDaemon runs a switch until the test ends, with further flags of `vswitch run`.
func startDaemon(t testing.TB, ns *testenv.Netns, flags ...string) *daemon {
	t.Helper()
	return &daemon{daemontest.Start(t, ns, flags...), t}
}

// ctl runs a command line, split at spaces, that must succeed.
func (d *daemon) ctl(format string, args ...any) string {
	d.t.Helper()
	return d.Ctl(d.t, format, args...)
}

// refuse runs a command line that must fail and say so on one line with words in it.
func (d *daemon) refuse(words, format string, args ...any) {
	d.t.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := d.Try(strings.Fields(line)...)
	if err == nil {
		d.t.Errorf("vswitch %s is accepted", line)
	} else if !strings.Contains(out, words) || strings.Contains(out, "\n") {
		d.t.Errorf("vswitch %s says %q, without %q on one line", line, out, words)
	}
}

// decode reads what a command prints with -o json.
func (d *daemon) decode(into any, format string, args ...any) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.ctl(format+" -o json", args...)), into); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) port(name string) api.Port {
	d.t.Helper()
	return d.Port(d.t, name)
}

// dropped is how many frames a port has lost for a reason, in both directions.
func (d *daemon) dropped(name string, why port.Drop) int {
	d.t.Helper()
	p := d.port(name)
	return int(p.RX.Dropped[why.String()] + p.TX.Dropped[why.String()])
}

// entry returns the FDB's entry of an address in a VLAN; its Port is "" where there
// is none.
func (d *daemon) entry(mac port.MAC, vlan uint16) api.FDBEntry {
	d.t.Helper()
	entries, err := d.Client.FDB(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		if e.MAC == mac && e.VLAN == vlan {
			return e
		}
	}
	return api.FDBEntry{}
}

// wantEntry checks behind which port an address is, "" for none.
func (d *daemon) wantEntry(mac port.MAC, vlan uint16, at string) {
	d.t.Helper()
	if e := d.entry(mac, vlan); e.Port != at {
		d.t.Errorf("%s in VLAN %d is behind port %q, want %q", mac, vlan, e.Port, at)
	}
}
