// Package trace answers what the switch would do with a frame, and which setting makes it so.
// The core passes the frame through its stages without sending it; this package puts into
// words what each of them decided.
package trace

import (
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/brief"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature is the feature of the program.
var Feature = feature.Feature{
	Name: "trace",
	Help: "what the switch would do with a frame, and why",
	New:  func(h feature.Host, _ any) (feature.Instance, error) { return &tracer{host: h}, nil },
	Routes: []feature.Route{{
		Method: "POST", Path: "/v1/trace",
		Help:    "what the switch would do with a frame that came by a port now, without sending it",
		Request: request{}, Answer: Answer{},
		Handle: func(i feature.Instance, r *http.Request) (any, error) { return i.(*tracer).handle(r) },
	}},
	Commands: []feature.Command{command},
}

// request asks about a frame.
type request struct {
	Port  string `json:"port"`  // that it comes by
	Frame string `json:"frame"` // in hexadecimal, from the destination address on, with its tag
}

// Answer says what would become of a frame.
type Answer struct {
	Port      string   `json:"port"`
	Frame     string   `json:"frame"`          // in words
	VLAN      uint16   `json:"vlan,omitempty"` // that it belongs to; 0: none
	Delivered bool     `json:"delivered"`      // whether a copy leaves by a port; copies of mirrors do not count
	Reason    string   `json:"reason,omitempty"`
	Steps     []Step   `json:"steps"`
	Outputs   []Output `json:"outputs"`
	FastPath  string   `json:"fastpath,omitempty"` // what it does: sent, dropped, punted or host (alone gets it); empty: it has no part in it
	Verdict   string   `json:"verdict"`
	Remedy    string   `json:"remedy,omitempty"` // what would let it pass
}

// Step is what one stage decided.
type Step struct {
	Stage   string `json:"stage"`   // in, guard, check, vlan, learn, look up, out, mirror, kernel
	Subject string `json:"subject"` // a port, its VLANs, or a station
	Result  string `json:"result"`
}

// Output is a port that the frame might leave by.
type Output struct {
	Port      string `json:"port"`
	Delivered bool   `json:"delivered"`
	Mirror    bool   `json:"mirror,omitempty"` // as the copy of a mirror
	Tag       uint16 `json:"tag,omitempty"`    // VLAN of the tag that it leaves with; 0: none
	Reason    string `json:"reason,omitempty"` // why it does not
}

// tracer is the running feature.
type tracer struct{ host feature.Host }

// Stop implements feature.Instance.
func (*tracer) Stop() {}

// handle answers POST /v1/trace.
func (t *tracer) handle(r *http.Request) (any, error) {
	q, err := feature.Body[request](r)
	if err != nil {
		return nil, err
	}
	in, err := feature.FindPort(t.host, q.Port)
	if err != nil {
		return nil, err
	}
	wire, err := hex.DecodeString(q.Frame)
	if err != nil || len(wire) == 0 || len(wire) > port.MaxFrame {
		return nil, api.Errorf(api.CodeInvalid, "a frame is 1 to %d bytes in hexadecimal, without spaces", port.MaxFrame)
	}
	a := &account{tracer: t, in: in, wire: wire, trace: in.Core().Trace(wire)}
	a.VLAN, a.FastPath = a.trace.VLAN, fastWords[a.trace.Fast]
	a.Port, a.Frame = in.Name(), string(brief.Append(nil, wire, len(wire)))
	a.Steps, a.Outputs = []Step{}, []Output{}
	a.tell()
	return &a.Answer, nil
}

// account puts a trace into words, stage by stage.
type account struct {
	Answer
	*tracer
	in    feature.Port
	wire  []byte
	trace vswitch.Trace
}

func (a *account) step(stage, subject, format string, args ...any) {
	a.Steps = append(a.Steps, Step{stage, subject, fmt.Sprintf(format, args...)})
}

// tell goes through the stages up to the one that drops the frame.
func (a *account) tell() {
	tag := "untagged"
	var f port.Frame
	if f.SetWire(append([]byte{}, a.wire...)); f.Tag.Present() {
		tag = fmt.Sprintf("tag %d", f.Tag.VID())
	}
	why := a.trace.Drop
	at := stageOf(why, a.VLAN != 0, a.in)
	if at == "in" {
		a.dropped("in", describe(a.in), a.in)
		return
	}
	a.step("in", describe(a.in), "%s", tag)
	if a.trace.Fast == vswitch.FastHost {
		a.step("kernel", a.in.Name(), "for the host alone: it is to the address of %s, which the host shares", a.in.Name())
		a.Verdict = "not for the switch"
		return
	}
	if at == "vlan" {
		a.dropped("vlan", vlanWords(a.in), a.in)
		return
	}
	if at == "check" || at == "guard" { // also of what belongs to no VLAN
		a.dropped(at, describe(a.in), a.in)
		return
	}
	a.step("vlan", vlanWords(a.in), "VLAN %d", a.VLAN)
	if at == "learn" {
		a.dropped("learn", f.Src.String(), a.in)
		return
	}
	a.step("learn", f.Src.String(), "%s", a.learned())
	a.lookUp(&f)
	a.out()
}

// learned says what becomes of the sender's FDB entry.
func (a *account) learned() string {
	w := &a.trace.Source
	switch {
	case w.Known && w.Port == a.in.Number():
		return "known here" + heard(w)
	case w.Known && w.Kind == fdb.Local:
		return "an address of the switch itself; not learned"
	case w.Known && a.trace.Learned:
		return "behind " + a.nameOf(w.Port) + heard(w) + "; it moves here"
	case w.Known:
		return "a " + w.Kind.String() + " entry of " + a.nameOf(w.Port) + "; not learned"
	case a.trace.Learned:
		return "new; it is learned here"
	case bool(a.in.Policy().NoLearning):
		return "not learned: --learning off"
	case a.in.Policy().LearnLimit > 0:
		return fmt.Sprintf("not learned: --learn-limit %d is reached", a.in.Policy().LearnLimit)
	}
	return "not learned"
}

// heard says how old an entry is, or of which kind.
func heard(w *vswitch.Whereabouts) string {
	switch w.Kind {
	case fdb.Dynamic:
		return fmt.Sprintf(", heard %v ago", w.Age)
	case fdb.Sticky:
		return fmt.Sprintf(", sticky, heard %v ago", w.Age)
	}
	return ", " + w.Kind.String()
}

func (a *account) nameOf(number uint16) string {
	if p := a.host.Port(number); p != nil {
		return p.Name()
	}
	return "no port"
}

// classes names the classes of flooded frames.
var classes = map[vswitch.Class]string{
	vswitch.Broadcast:      "broadcast: to all ports",
	vswitch.Multicast:      "group: to the ports that want it",
	vswitch.UnknownUnicast: "unknown: flooded to all ports",
}

// lookUp says where the destination is.
func (a *account) lookUp(f *port.Frame) {
	w := &a.trace.Dest
	switch {
	case f.Dst == port.Broadcast:
		a.step("look up", f.Dst.String(), "%s", classes[vswitch.Broadcast])
	case f.Dst.IsGroup():
		a.step("look up", f.Dst.String(), "%s", classes[vswitch.Multicast])
	case !w.Known:
		a.step("look up", f.Dst.String(), "%s", classes[vswitch.UnknownUnicast])
	case w.Kind == fdb.Local:
		a.step("look up", f.Dst.String(), "an address of the switch itself")
	default:
		a.step("look up", f.Dst.String(), "behind %s%s, VLAN %d", a.nameOf(w.Port), heard(w), a.VLAN)
	}
}

// out says which ports the frame leaves by, and why not by others.
func (a *account) out() {
	var lost feature.Port
	for _, c := range a.trace.Copies {
		p := a.host.Port(c.Port.Number())
		if p == nil || c.Mirror {
			continue
		}
		o := Output{Port: p.Name(), Delivered: p.Up(), Tag: c.Tag.VID()}
		if o.Delivered {
			a.Delivered = true
			a.step("out", describe(p), "%s", leaves(&c))
		} else {
			o.Reason = port.DropNoCarrier.String()
			a.step("out", describe(p), "%s, but %s", leaves(&c), noCarrier)
			lost = p
		}
		a.Outputs = append(a.Outputs, o)
	}
	for _, o := range a.trace.Others {
		if p := a.host.Port(o.Port.Number()); p != nil {
			why, name := a.refusal(p, &o)
			a.step("out", describe(p), "not by it: %s", why)
			a.Outputs = append(a.Outputs, Output{Port: p.Name(), Reason: name})
		}
	}
	for _, c := range a.trace.Copies {
		if p := a.host.Port(c.Port.Number()); p != nil && c.Mirror {
			a.step("mirror", describe(p), "a copy, %s", leaves(&c))
			a.Outputs = append(a.Outputs, Output{Port: p.Name(), Delivered: true, Mirror: true, Tag: c.Tag.VID()})
		}
	}
	switch {
	case a.Delivered:
		a.kernel()
		a.Verdict = "delivered"
	case lost != nil:
		a.Reason, a.Remedy = port.DropNoCarrier.String(), "`vswitch ports "+lost.Name()+"` says what it waits for"
		a.Verdict = "not delivered. " + a.Remedy
	default:
		at := a.in
		if w := &a.trace.Dest; w.Known {
			if p := a.host.Port(w.Port); p != nil {
				at = p
				a.Outputs = append(a.Outputs, Output{Port: p.Name(), Reason: a.trace.Drop.String()})
			}
		}
		a.dropped("out", describe(at), at)
	}
}

// noCarrier is what becomes of frames to a port that is not up, but forwards.
const noCarrier = "nobody holds the other end"

// leaves says how a copy leaves.
func leaves(c *vswitch.TraceCopy) string {
	words := "sent untagged"
	switch {
	case c.Push:
		words = fmt.Sprintf("sent with tag %d in front of its own", c.Tag.VID())
	case c.Tag.Present():
		words = fmt.Sprintf("sent with tag %d", c.Tag.VID())
	}
	if c.Shaped {
		words += ", when --rate-out lets it"
	}
	return words
}

// fastWords name what the fast path does with the frame, in Answer.
var fastWords = map[vswitch.FastVerdict]string{
	vswitch.FastPunted: "punted", vswitch.FastSent: "sent", vswitch.FastDropped: "dropped", vswitch.FastHost: "host",
}

// kernel says what the fast path does with a frame that is delivered. It decides before the
// switch does, and about its own tables.
func (a *account) kernel() {
	if !a.host.Switch().Fast() {
		return
	}
	switch a.trace.Fast {
	case vswitch.FastSent:
		a.step("kernel", a.in.Name(), "on the fast path")
	case vswitch.FastDropped:
		a.step("kernel", a.in.Name(), "dropped by the fast path, which has not heard of the last change yet")
	default:
		a.step("kernel", a.in.Name(), "passes the daemon%s", a.whyPunted())
	}
}

// whyPunted says why the fast path leaves the frame to the daemon.
func (a *account) whyPunted() string {
	at := []*vswitch.Port{a.in.Core()}
	if a.trace.Flood == 0 && len(a.trace.Copies) > 0 {
		at = append(at, a.trace.Copies[0].Port)
	}
	for _, p := range at {
		if off := p.KeptOff(); len(off) > 0 {
			return fmt.Sprintf(": %s: %s", p.Name(), off[0])
		}
	}
	switch w := &a.trace.Source; {
	case !w.Known || w.Port != a.in.Number():
		return ", until the sender is known here"
	case a.trace.Flood == vswitch.UnknownUnicast:
		return ", until the destination is known"
	}
	return ": the fast path leaves such frames to it"
}
