// Package drops shows frames that the switch did not deliver, with the reason. It keeps the
// last few of each port and reason, and clients of the API follow what is dropped. Only a
// sample is taken of each port and reason, so that a flood of one hides no other, and costs
// little. Frames that are forwarded are not touched.
package drops

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/brief"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature is the feature of the program.
var Feature = feature.Feature{
	Name: "drops",
	Help: "see which frames are dropped, and why",
	New:  func(h feature.Host, _ any) (feature.Instance, error) { return newDrops(h), nil },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/drops/recent",
		Help:  "the last few dropped frames of each port and reason, oldest first",
		Query: query{}, Answer: []Dropped{},
		Handle: func(i feature.Instance, r *http.Request) (any, error) { return i.(*drops).list(r) },
	}, {
		Method: "GET", Path: "/v1/drops/follow",
		Help:  "a sample of the frames that are dropped from now on, a JSON object as of /v1/drops/recent on each line",
		Query: query{}, Type: "application/x-ndjson",
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) { i.(*drops).follow(w, r) },
	}},
	Commands: []feature.Command{command},
}

// query selects dropped frames.
type query struct {
	Port   []string `json:"port" arg:"PORTS" help:"only frames that these ports dropped" default:"all"`
	Reason reasons  `json:"reason" arg:"NAME" help:"only frames dropped for this reason" default:"all but consumed"`
	Filter string   `json:"filter" arg:"EXPR" help:"only frames that match the expression" default:"all"`
}

// reasons are names of drop reasons.
type reasons []string

// Values implements setting.Enum.
func (reasons) Values() (all []string) {
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		all = append(all, d.String())
	}
	return all
}

// Dropped is a dropped frame in the API.
type Dropped struct {
	Time      time.Time      `json:"time"`
	Port      string         `json:"port"`
	Direction port.Direction `json:"direction"` // rx: the port received it; tx: it was to leave by the port
	Reason    string         `json:"reason"`
	Words     string         `json:"words"`          // the reason in words
	VLAN      uint16         `json:"vlan,omitempty"` // in which it was switched; 0: none was found
	Length    int            `json:"length"`
	Frame     string         `json:"frame"` // in words
	Data      hexText        `json:"data"`  // its first bytes

	// Missed counts frames that the port dropped for this reason before this one, and of
	// which no sample was taken.
	Missed uint64 `json:"missed,omitempty"`
}

// hexText is bytes, which JSON has in hexadecimal.
type hexText []byte

// MarshalText implements encoding.TextMarshaler.
func (h hexText) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hexText) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// selection is a query that frames can be compared with.
type selection struct {
	ports   []string
	reasons [port.NumDrops]bool
	filter  *pfilter.Filter // nil: all
}

func newSelection(q *query) (*selection, error) {
	s := &selection{ports: q.Port}
	for d := range s.reasons {
		s.reasons[d] = slices.Contains(q.Reason, port.Drop(d).String()) || len(q.Reason) == 0 && port.Drop(d) != port.DropConsumed
	}
	if q.Filter != "" {
		filter, err := pfilter.Compile(q.Filter)
		if err != nil {
			return nil, api.Errorf(api.CodeInvalid, "%w", err)
		}
		s.filter = filter
	}
	return s, nil
}

// maxFollowers is how many clients follow at once.
const maxFollowers = 8

// drops is the running feature.
type drops struct {
	host      feature.Host
	recent    *recent
	unwatch   func()
	followers atomic.Int32
	stop      chan struct{}
}

func newDrops(h feature.Host) *drops {
	d := &drops{host: h, recent: newRecent(), stop: make(chan struct{})}
	d.unwatch = h.Switch().Watch(&vswitch.Watch{Drops: true, SnapLen: snapLen, See: d.recent.see})
	return d
}

// Stop implements feature.Instance.
func (d *drops) Stop() {
	d.unwatch()
	close(d.stop)
}

// Removed implements feature.Removed.
func (d *drops) Removed(p feature.Port) { d.recent.forget(p.Core()) }

// parse reads a query. The turn is not needed.
func (d *drops) parse(r *http.Request) (*selection, error) {
	q, err := feature.Query[query](r)
	if err != nil {
		return nil, err
	}
	for _, name := range q.Port {
		if d.host.Switch().Port(name) == nil {
			return nil, feature.NoPort(name)
		}
	}
	return newSelection(&q)
}

// list answers GET /v1/drops/recent.
func (d *drops) list(r *http.Request) (any, error) {
	want, err := d.parse(r)
	if err != nil {
		return nil, err
	}
	all := []Dropped{}
	for _, s := range d.recent.all() {
		if want.has(&s) {
			all = append(all, s.describe())
		}
	}
	return all, nil
}

// follow answers GET /v1/drops/follow.
func (d *drops) follow(w http.ResponseWriter, r *http.Request) {
	want, err := d.parse(r)
	if err == nil && d.followers.Add(1) > maxFollowers {
		d.followers.Add(-1)
		err = api.Errorf(api.CodeBusy, "%d clients follow the drops already; end one of them", maxFollowers)
	}
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	defer d.followers.Add(-1)
	f := newFollower(want)
	unwatch := d.host.Switch().Watch(&vswitch.Watch{Ports: want.ports, Drops: true, Punt: true, SnapLen: snapLen, See: f.see})
	defer unwatch()
	feature.Stream(w, r, "application/x-ndjson", nil, d.stop, f.write)
}

// write writes what was dropped since it was last called.
func (f *follower) write(w io.Writer) (done bool, err error) {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for _, s := range f.samples() {
		if err := out.Encode(s.describe()); err != nil {
			return false, err
		}
	}
	return false, nil
}

// describe returns a sample as the API has it.
func (s *sample) describe() Dropped {
	info := s.why.Info()
	data := s.data[:s.size]
	direction := port.OnInput
	if s.sent {
		direction = port.OnOutput
	}
	return Dropped{
		Time: s.time, Port: s.port.Name(), Direction: direction, Reason: info.Name, Words: strings.ReplaceAll(info.Words, "DEV", s.port.Name()),
		VLAN: s.vlan, Length: s.length, Frame: string(brief.Append(nil, data, s.length)), Data: data, Missed: s.missed,
	}
}
