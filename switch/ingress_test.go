package vswitch_test

import (
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A checksum that is still to be completed lies where the frame has one. Elsewhere it would
// change bytes after the switch looked at them: here the sender that an ARP reply names.
func TestChecksumPlace(t *testing.T) {
	arp := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02"), make([]byte, 38)...)
	segment, o := tuntest.TCP4(200)
	o.GSOType, o.GSOSize = port.GSONone, 0
	source := o
	source.CsumStart, source.CsumOffset = 20, 6
	for name, c := range map[string]struct {
		wire    []byte
		offload port.Offload
		ok      bool
	}{
		"TCP":             {segment, o, true},
		"the IPv4 source": {segment, source, false},
		"the ARP sender":  {arp, port.Offload{Flags: port.NeedsCsum, CsumStart: 20, CsumOffset: 10}, false},
		"behind a tag":    {append(append(append([]byte{}, segment[:12]...), 0x81, 0, 0, 0), segment[12:]...), port.Offload{Flags: port.NeedsCsum, CsumStart: o.CsumStart + 4, CsumOffset: 16}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, vswitch.Config{}, 2, memory.Options{})
			defer r.Close()
			r.lines[0].Put(0, memory.Packet{Wire: c.wire, Offload: c.offload})
			synctest.Wait()
			if n := len(r.taken(1)); (n == 1) != c.ok {
				t.Errorf("%s: %d frames arrived", name, n)
			}
			if n := r.ports[0].Stats().RX.Dropped[port.DropBadOffload]; (n == 1) == c.ok {
				t.Errorf("%s: %d dropped as bad_offload", name, n)
			}
		})
	}
}

// standby is a port all of whose frames come by a link that does not carry it now.
type standby struct{ *memory.Port }

func (s standby) Queues() []port.Queue { return []port.Queue{standbyQueue{s.Port.Queues()[0]}} }

type standbyQueue struct{ port.Queue }

func (q standbyQueue) Recv(frames []port.Frame) (int, error) {
	n, err := q.Queue.Recv(frames)
	for i := range frames[:n] {
		frames[i].Drop = port.DropStandby
	}
	return n, err
}

// Of what comes by a link that does not carry its port, the protocols of links alone get what they
// asked for.
func TestStandbyLink(t *testing.T) {
	const lacp, probe = port.MAC(0x0180_c200_0002), port.MAC(0x0300_0000_0001)
	synctest.Test(t, func(t *testing.T) {
		var got []vswitch.ControlFrame
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) { got = append(got, c) }}, 1, memory.Options{})
		defer r.Close()
		p, err := r.AddPort("bond")
		if err != nil {
			t.Fatal(err)
		}
		line := memory.New(memory.Options{})
		if err := p.Attach(standby{line}); err != nil {
			t.Fatal(err)
		}
		p.SetTraps(vswitch.QueueLink, []vswitch.Trap{{Dst: lacp, Queue: vswitch.QueueLink}})
		p.SetTraps(vswitch.QueueLoop, []vswitch.Trap{{Dst: probe, Queue: vswitch.QueueLoop}})
		put := func() {
			for _, dst := range []port.MAC{lacp, probe, port.Broadcast} {
				line.Put(0, memory.Packet{Wire: frame(dst, station(1), 0, 60)})
			}
			synctest.Wait()
		}
		put() // before the port forwards
		if len(got) != 0 || p.Stats().RX.Dropped[port.DropStandby] != 3 {
			t.Errorf("a port that does not forward gives %+v", got)
		}
		p.SetForwarding(true)
		put()
		if len(got) != 1 || got[0].Port != p || got[0].Queue != vswitch.QueueLink || got[0].VLAN != 0 {
			t.Errorf("protocols get %+v", got)
		}
		if st := p.Stats().RX; st.Dropped[port.DropStandby] != 5 || st.Dropped[port.DropConsumed] != 1 || len(r.taken(0)) != 0 {
			t.Errorf("counted are %v", st.Dropped)
		}
	})
}
