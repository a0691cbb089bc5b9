package daemon

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
)

// identityIn opens the identity of a directory as a host that here describes, and
// returns what was logged.
func identityIn(t *testing.T, dir string, here machine, saved ...string) (*identity, string) {
	t.Helper()
	var log bytes.Buffer
	id := newIdentity()
	id.path, id.log = filepath.Join(dir, "identity.json"), slog.New(slog.NewTextHandler(&log, nil))
	var ports []store.Port
	for _, name := range saved {
		ports = append(ports, store.Port{Spec: store.Spec{Name: name}})
	}
	if err := id.load("sw0", ports, here); err != nil {
		t.Fatal(err)
	}
	return id, log.String()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, "identity.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "identity.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	here := machine{UUID: "u1", MACs: []string{"m1", "m2"}}
	first, _ := identityIn(t, dir, here)
	own, vm0 := first.switchMAC(), first.guestMAC("vm0")
	if own.IsGroup() || own>>41&1 == 0 {
		t.Errorf("%s is not a locally administered station's", own)
	}
	if vm0>>24 != 0x525400 {
		t.Errorf("%s is not of QEMU's range", vm0)
	}
	// Neither a NIC nor a board that is replaced changes it, one after the other, nor a
	// start that cannot see them.
	for _, here := range []machine{here, {UUID: "u1", MACs: []string{"m3"}}, {UUID: "u2", MACs: []string{"m3"}}, {}, {UUID: "u2", MACs: []string{"m4"}}} {
		again, log := identityIn(t, dir, here)
		if again.switchMAC() != own || again.guestMAC("vm0") != vm0 || log != "" {
			t.Errorf("on %+v: %s and %s, not %s and %s; %s", here, again.switchMAC(), again.guestMAC("vm0"), own, vm0, log)
		}
	}
	other, _ := identityIn(t, t.TempDir(), here)
	if other.switchMAC() == own || other.guestMAC("vm0") == vm0 {
		t.Error("another switch has the same addresses")
	}
}

// A host that was cloned with its state is another switch. So is one whose user asked.
func TestIdentityOfAClone(t *testing.T) {
	dir, clone := t.TempDir(), t.TempDir()
	a, _ := identityIn(t, dir, machine{UUID: "u1", MACs: []string{"m1"}})
	copyFile(t, dir, clone)
	b, log := identityIn(t, clone, machine{UUID: "u2", MACs: []string{"m2"}})
	if a.switchMAC() == b.switchMAC() || a.guestMAC("vm0") == b.guestMAC("vm0") || !strings.Contains(log, "another host") {
		t.Errorf("a clone has %s; %s", b.switchMAC(), log)
	}
	again, log := identityIn(t, clone, machine{UUID: "u2", MACs: []string{"m2"}})
	if again.switchMAC() != b.switchMAC() || log != "" {
		t.Errorf("the clone does not keep its own: %s", log)
	}
	if err := os.WriteFile(filepath.Join(clone, "identity.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, log := identityIn(t, clone, machine{UUID: "u2", MACs: []string{"m2"}}, "vm0")
	if c.switchMAC() == b.switchMAC() || c.guestMAC("vm0") == b.guestMAC("vm0") || log == "" {
		t.Error("{} is no new identity")
	}
}

func TestIdentityThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"", "{", `{"seed":"zz"}`, `{"seed":"00"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, log := identityIn(t, dir, machine{})
		aside, err := os.ReadFile(filepath.Join(dir, "identity.json.corrupt"))
		if err != nil || string(aside) != text || !strings.Contains(log, "identity.json.corrupt") {
			t.Errorf("%q: kept %q, %v; %s", text, aside, err, log)
		}
	}
}

// Machines of ports that were there before there was an identity keep their addresses.
func TestIdentityOfAnUpgrade(t *testing.T) {
	dir := t.TempDir()
	h := sha256.Sum256([]byte("sw0\x00vm0"))
	want := port.MACFrom([]byte{0x52, 0x54, 0, h[0], h[1], h[2]})
	for range 2 {
		id, _ := identityIn(t, dir, machine{}, "vm0")
		if got := id.guestMAC("vm0"); got != want {
			t.Errorf("vm0 has %s, it had %s", got, want)
		}
	}
	a, _ := identityIn(t, dir, machine{}, "vm0")
	b, _ := identityIn(t, t.TempDir(), machine{}, "vm0")
	if a.guestMAC("vm1") == b.guestMAC("vm1") {
		t.Error("a new port has an address by its name alone")
	}
}

// No two ports of a switch have one address, in whatever order they are asked for
// after a restart.
func TestGuestMACsDiffer(t *testing.T) {
	const ports = 12000 // some four of them collide at first
	dir := t.TempDir()
	id, _ := identityIn(t, dir, machine{})
	macs := make(map[port.MAC]string)
	for i := range ports {
		name := fmt.Sprint("vm", i)
		mac := id.guestMAC(name)
		if macs[mac] != "" || mac.IsGroup() {
			t.Errorf("%s and %s have %s", name, macs[mac], mac)
		}
		macs[mac] = name
	}
	again, _ := identityIn(t, dir, machine{})
	for mac, name := range macs {
		if got := again.guestMAC(name); got != mac {
			t.Errorf("%s has %s after a restart, it had %s", name, got, mac)
		}
	}
	id.release("vm0")
	if len(id.given) != ports-1 || len(id.owner) != ports-1 {
		t.Errorf("%d names and %d addresses are left", len(id.given), len(id.owner))
	}
}

// A frame from the switch's own address is named, and not for each frame. Where an identity is kept,
// it is said how to get another.
func TestOwnAddressFromOutside(t *testing.T) {
	look := "look for a loop behind the port, or for another switch with this address"
	kept := t.TempDir() + "/identity.json"
	for path, advice := range map[string]string{
		"":   look,
		kept: look + "; for a new one stop vswitch, write {} into the identity file, and start it again",
	} {
		synctest.Test(t, func(t *testing.T) {
			w := wire(t, store.State{}, func(o *Options) {
				withTree(o)
				if path != "" {
					o.ids = openIdentity(path, o.Name, nil, o.Log)
				}
			}, vm("vm0"), vm("vm1"))
			w.logged()
			for range 100 {
				frame := append(port.Broadcast.HardwareAddr(), w.mac.HardwareAddr()...)
				w.send("vm0", append(frame, make([]byte, 50)...))
			}
			log := w.logged()
			if n := strings.Count(log, "own address"); n != 1 || !strings.Contains(log, "port=vm0") {
				t.Errorf("%d lines:\n%s", n, log)
			}
			if !strings.Contains(log, fmt.Sprintf("advice=%q identity=%s", advice, cmp.Or(path, `""`))) {
				t.Errorf("with the identity file %q it advises:\n%s", path, log)
			}
		})
	}
}
