package tuntap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCreate(t *testing.T) {
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		if err := Create("vm0", "vswitch sw0", Access{Owner: 1234, Group: Anyone}, false); err != nil {
			t.Fatal(err)
		}
		l, err := link.ByName("vm0")
		if err != nil || l.Kind != "tap" || l.Up || l.MultiQueue || l.Alias != "vswitch sw0" {
			t.Fatalf("%+v, %v", l, err)
		}
		for _, c := range []struct {
			a    Access
			want bool
		}{
			{Access{1234, Anyone}, false}, {Access{1235, Anyone}, true}, {Access{1234, 5}, true}, {Access{0, Anyone}, true},
		} {
			if got := c.a.Differs(l); got != c.want {
				t.Errorf("%+v differs from owner %d, group %d: %t", c.a, l.Owner, l.Group, got)
			}
		}
		// Nobody holds it: the fd end is free.
		tuntest.Boot(t, "vm0", tuntest.TSO).Kill()
		if err := Create("vm0", "", Access{Owner: 0, Group: Anyone}, false); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("the same again: %v", err)
		}
	})
}

// A device is free as soon as it is made, whatever programs the process starts meanwhile.
func TestCreateWhileProgramsStart(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var started sync.WaitGroup
	for range 4 {
		started.Go(func() {
			for ctx.Err() == nil {
				if err := exec.Command("true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	testenv.NewNetns(t).Do(func() {
		for i := range 100 {
			name := fmt.Sprint("vm", i)
			if err := Create(name, "", Access{Owner: 0, Group: Anyone}, false); err != nil {
				t.Fatal(err)
			}
			d, err := Open(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
		}
	})
	stop()
	started.Wait()
}

// A failure leaves neither a device nor a descriptor.
func TestCreateFails(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
		open := func() int {
			list, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		before := open()
		for range 5 {
			less := all
			less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			if err := unix.Capset(&header, &less[0]); err != nil {
				t.Fatal(err)
			}
			err := Create("vm0", "", Access{Owner: 0, Group: Anyone}, false)
			if e := unix.Capset(&header, &all[0]); e != nil {
				t.Fatal(e)
			}
			if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
				t.Fatalf("without the capability: %v", err)
			}
			// The kernel refuses this owner only after the device is made.
			if err := Create("vm0", "", Access{Owner: 1<<32 - 1, Group: Anyone}, false); err == nil {
				t.Fatal("an owner that cannot be is taken")
			}
			if _, err := link.ByName("vm0"); !errors.Is(err, link.ErrNotFound) {
				t.Fatalf("vm0 is left (%v)", err)
			}
		}
		if after := open(); after > before {
			t.Errorf("%d files open before, %d after", before, after)
		}
	})
}

// A device with a check ends when the check says no, busy or idle.
func TestCheck(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		if err := Create("vm0", "", Access{Owner: 0, Group: Anyone}, false); err != nil {
			t.Fatal(err)
		}
		asked := 0
		d, err := Open("vm0", func() bool { asked++; return asked < 2 })
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := tuntest.Read(t, d).End(t, 10*time.Second); !errors.Is(err, port.ErrGone) {
			t.Errorf("Recv ended with %v", err)
		}
		if took := time.Since(start); asked != 2 || took < checkEvery {
			t.Errorf("asked %d times in %v", asked, took)
		}
	})
}

// What comes from the kernel end is a frame with its tag out and its offload moved,
// or is marked as lost.
func TestDecode(t *testing.T) {
	tag := port.MakeTag(port.TPIDService, 100)
	tcp, o := tuntest.TCP4(1000)
	moved := vnet.Tag(o, 4)
	with := func(o port.Offload, change func(*port.Offload)) port.Offload { change(&o); return o }
	for _, c := range []struct {
		name string
		wire []byte
		o    port.Offload
		tag  port.Tag
		drop port.Drop
	}{
		{"plain", tuntest.Ethernet(1, 60), port.Offload{}, 0, port.DropNone},
		{"offload", tcp, o, 0, port.DropNone},
		{"tag and offload", tuntest.Tagged(tcp, tag), moved, tag, port.DropNone},
		{"checksum in the tag", tuntest.Tagged(tcp, tag), with(moved, func(o *port.Offload) { o.CsumStart = 15 }), tag, port.DropBadOffload},
		{"checksum past the end", tcp, with(o, func(o *port.Offload) { o.CsumStart = 999 }), 0, port.DropBadOffload},
		{"runt", tcp[:13], port.Offload{}, 0, port.DropRunt},
		{"longest", make([]byte, port.MaxFrame), port.Offload{}, 0, port.DropNone},
		{"too long", make([]byte, port.MaxFrame+1), port.Offload{}, 0, port.DropOversize},
	} {
		b := make([]byte, vnet.HeaderLen, rxbuf.Stride)
		vnet.Encode(b, c.o)
		var f port.Frame
		decode(&f, append(b, c.wire...))
		if f.Drop != c.drop || f.Tag != c.tag {
			t.Errorf("%s: drop %v, tag %#x", c.name, f.Drop, f.Tag)
		}
		if c.drop != port.DropNone {
			continue
		}
		back := f.Data
		if c.tag.Present() {
			back = tuntest.Tagged(back, f.Tag)
		}
		if !bytes.Equal(back, c.wire) || vnet.Tag(f.Offload, f.Tag.Len()) != c.o {
			t.Errorf("%s: %d bytes, offload %+v", c.name, len(f.Data), f.Offload)
		}
	}
	var f port.Frame
	decode(&f, binary.NativeEndian.AppendUint32(nil, 0))
	if f.Drop != port.DropRunt {
		t.Errorf("less than a header: %v", f.Drop)
	}
}

// The kernel refuses a frame whose hint of the headers' length exceeds it, so what is passed on
// does not.
func TestHint(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	d := &Device{fd: pipe[1]} // takes whatever is written
	wire, o := tuntest.TCP4(1000)
	for _, c := range []struct {
		hint, want uint16
		tag        port.Tag
	}{{54, 54, 0}, {1000, 1000, 0}, {1001, 1000, 0}, {0xffff, 1000, 0}, {0xffff, 1004, port.MakeTag(port.TPIDCustomer, 5)}} {
		f := new(port.Frame)
		f.SetStripped(bytes.Clone(wire), 0)
		f.Offload = o
		f.Offload.HdrLen = c.hint
		out := []port.Out{{Frame: f, Tag: c.tag}}
		d.Send(out)
		b := make([]byte, 2000)
		n, err := unix.Read(pipe[0], b)
		if err != nil || out[0].Drop != port.DropNone || n != vnet.HeaderLen+1000+c.tag.Len() {
			t.Fatalf("%d bytes, %v, %v", n, out[0].Drop, err)
		}
		if got := vnet.Decode(b).HdrLen; got != c.want {
			t.Errorf("hdr_len %d of 1000 bytes with a tag of %d is passed on as %d, want %d", c.hint, c.tag.Len(), got, c.want)
		}
	}
}
