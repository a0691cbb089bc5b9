package fastpath

import (
	"slices"
	"strconv"
	"testing"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// decisions are what becomes of a frame of which Explain says this. The rest is a matter of
// time, which Explain does not foresee: rates, and how many bad frames of a guarded port are
// handed up for the log.
var decisions = map[vswitch.FastVerdict]uint32{
	vswitch.FastPunted: tcxPass, vswitch.FastSent: tcxRedirect, vswitch.FastDropped: tcxDrop,
}

// explained wants the answer about a frame that comes by a device to be what then became of it.
func (r *rig) explained(ifindex uint32, wire []byte, decision uint32, is vswitch.FastVerdict) {
	r.t.Helper()
	in := slices.IndexFunc(r.ports, func(p vswitch.FastPort) bool { return p.Device.Ifindex() == int(ifindex) })
	if in < 0 || is == vswitch.FastUnknown || r.stale { // of no port, or none that can be asked about
		return
	}
	if r.ports[in].Police != (vswitch.FastRate{}) || decision == tcxDrop && r.ports[in].Guarded {
		return
	}
	if want, ok := decisions[is]; !ok || decision != want {
		r.t.Errorf("Explain says %d of % x, and the decision is %d", is, wire, decision)
	}
}

// state is all that a question may not change.
func (r *rig) state() (st [4]vswitch.PortStats, heard [2]uint32) {
	for n := range st {
		st[n] = r.path.Counters(uint16(n))
	}
	for i, mac := range []port.MAC{macA, macB} {
		if _, at := r.path.known.find(fdb.MakeKey(1, uint64(mac))); at != nil {
			heard[i] = stationOf(at.Load()).Heard
		}
	}
	return st, heard
}

// explain asks about a frame that comes by port 0, without any effect.
func (r *rig) explain(wire []byte) (is vswitch.FastVerdict) {
	r.t.Helper()
	before, heard := r.state()
	r.ns.Do(func() { is = r.path.Explain(0, wire) })
	if after, now := r.state(); after != before || now != heard {
		r.t.Errorf("a question changes the counters from %+v to %+v, what was heard from %v to %v", before, after, heard, now)
	}
	return is
}

// tagged is a frame with its tag in place.
func tagged(wire []byte, tag port.Tag) []byte {
	return slices.Insert(slices.Clone(wire), 12, byte(tag.TPID()>>8), byte(tag.TPID()), byte(tag.TCI()>>8), byte(tag.TCI()))
}

// The other tests of decisions hold Explain to those; this one adds frames with tags, which a run by
// hand cannot have beside their bytes.
func TestExplainTags(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	for n := range r.ports {
		r.ports[n].TPID, r.ports[n].VLANs = port.TPIDCustomer, vlans(1, 20)
	}
	r.publish(r.ports)
	r.learn(20, macA, 0)
	r.learn(20, macB, 1)
	r.learn(1, macA, 0)
	for what, c := range map[string]struct {
		tags []port.Tag // the outermost last
		want vswitch.FastVerdict
	}{
		"a VLAN that the port has":  {[]port.Tag{port.MakeTag(port.TPIDCustomer, 20)}, vswitch.FastSent},
		"with a priority":           {[]port.Tag{port.MakeTag(port.TPIDCustomer, 20|5<<13)}, vswitch.FastSent},
		"another VLAN":              {[]port.Tag{port.MakeTag(port.TPIDCustomer, 30)}, vswitch.FastPunted},
		"no VLAN, unknown there":    {nil, vswitch.FastPunted},
		"two tags":                  {[]port.Tag{port.MakeTag(port.TPIDCustomer, 7), port.MakeTag(port.TPIDCustomer, 20)}, vswitch.FastSent},
		"a tag that does not count": {[]port.Tag{port.MakeTag(port.TPIDService, 20)}, vswitch.FastPunted},
	} {
		wire := frame(macB, macA, frameLen)
		for _, tag := range c.tags {
			wire = tagged(wire, tag)
		}
		if is := r.explain(wire); is != c.want {
			t.Errorf("%s: Explain says %d, want %d", what, is, c.want)
		}
	}
}

// A question sends nothing and makes nobody heard, also of frames that mirrors and floods copy.
func TestExplainHasNoEffect(t *testing.T) {
	t.Parallel()
	r, guests := crowded(t)
	r.ports[0].MirrorIn, r.ports[3].MirrorTo, r.ports[3].Deaf, r.ports[3].To = 1, 1, true, false
	r.publish(r.ports)
	r.learn(1, macB, 1)
	for _, mac := range []port.MAC{macA, macB} {
		_, at := r.path.known.find(fdb.MakeKey(1, uint64(mac)))
		s := stationOf(at.Load())
		s.Heard = 0
		at.Store(word(s))
	}
	for dst, want := range map[port.MAC]vswitch.FastVerdict{macB: vswitch.FastSent, macC: vswitch.FastPunted, port.Broadcast: vswitch.FastSent, macA: vswitch.FastDropped} {
		if is := r.explain(frame(dst, macA, frameLen)); is != want {
			t.Errorf("to %v: Explain says %d, want %d", dst, is, want)
		}
	}
	for n, fd := range guests {
		if got := read(t, fd); len(got) > 0 {
			t.Errorf("guest %d hears %d frames that nobody sent", n, len(got))
		}
	}
}

// A question about a port that is not there, or a frame that is no frame, has no answer.
func TestExplainNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	for what, is := range map[string]vswitch.FastVerdict{
		"no port":  r.path.Explain(9, frame(macB, macA, frameLen)),
		"no bytes": r.path.Explain(0, nil),
		"a runt":   r.path.Explain(0, make([]byte, 13)),
		"a giant":  r.path.Explain(0, frame(macB, macA, 1<<16)),
	} {
		if is != vswitch.FastUnknown {
			t.Errorf("%s: Explain says %s", what, strconv.Itoa(int(is)))
		}
	}
}
