// Package sflow samples the frames of ports, and sends the samples, counters of ports and
// notifications of drops to collectors (sFlow version 5). internal/proto/sflow writes the
// datagrams. Workers and the fast path put samples into a queue and never wait; a goroutine
// sends what is in it. What does not fit is counted, and collectors are told.
package sflow

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/sflow"
	"github.com/vswitch/vswitch/internal/setting"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of the switch.
type Settings struct {
	Collectors []Collector      `json:"sflow_collector,omitempty" arg:"ADDRESS[:PORT]" help:"send samples of frames and counters of ports by sFlow to this collector, by default at UDP port 6343"`
	Agent      setting.Addr     `json:"sflow_agent,omitzero" arg:"ADDRESS" default:"that from which the first collector is reached" help:"with --sflow-collector: the address by which collectors know this host"`
	OneIn      uint32           `json:"sflow_rate,omitempty" arg:"N" min:"1" max:"16777216" default:"1000" help:"with --sflow-collector: draw one of so many frames that a port receives"`
	Interval   setting.Duration `json:"sflow_interval,omitzero" arg:"TIME" default:"30s" help:"with --sflow-collector: how often to send the counters of each port"`
	HeaderLen  uint16           `json:"sflow_header,omitempty" arg:"BYTES" min:"14" max:"256" default:"128" help:"with --sflow-collector: how much of a frame to send"`
	Drops      uint16           `json:"sflow_drops,omitempty" arg:"N" min:"1" max:"10000" default:"none" help:"with --sflow-collector: tell of so many dropped frames a second at most, each with the reason"`
}

// maxCollectors is how many collectors there may be: each datagram is sent to all.
const maxCollectors = 8

// The shortest and longest Interval.
const (
	minInterval = time.Second
	maxInterval = time.Hour
)

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	others := s
	others.Collectors = nil
	switch {
	case len(s.Collectors) == 0 && !others.isZero():
		return errors.New("--sflow-agent, --sflow-rate, --sflow-interval, --sflow-header and --sflow-drops are for collectors; give --sflow-collector as well")
	case len(s.Collectors) > maxCollectors:
		return fmt.Errorf("%d collectors are too many; use %d at most, and have them pass samples on", len(s.Collectors), maxCollectors)
	case s.Agent.IsValid() && (s.Agent.IsUnspecified() || s.Agent.IsMulticast() || s.Agent.Zone() != ""):
		return fmt.Errorf("%v is the address of no host; write --sflow-agent as 192.0.2.1 or 2001:db8::1", s.Agent)
	case s.Interval != 0 && (time.Duration(s.Interval) < minInterval || time.Duration(s.Interval) > maxInterval):
		return fmt.Errorf("counters cannot be sent every %v; use %v to %v", s.Interval, minInterval, maxInterval)
	}
	return nil
}

func (s *Settings) isZero() bool {
	return len(s.Collectors) == 0 && !s.Agent.IsValid() && s.OneIn == 0 && s.Interval == 0 && s.HeaderLen == 0 && s.Drops == 0
}

// AfterMerge implements setting.Merged: without collectors the other settings are unset, too.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	if len(former.(Settings).Collectors) == 0 || len(s.Collectors) > 0 {
		return
	}
	unset := Settings{}
	for key, one := range map[string]func(){
		"sflow_agent":    func() { s.Agent = unset.Agent },
		"sflow_rate":     func() { s.OneIn = unset.OneIn },
		"sflow_interval": func() { s.Interval = unset.Interval },
		"sflow_header":   func() { s.HeaderLen = unset.HeaderLen },
		"sflow_drops":    func() { s.Drops = unset.Drops },
	} {
		if !given(key) {
			one()
		}
	}
}

// withDefaults returns the settings that apply.
func (s Settings) withDefaults() Settings {
	s.OneIn = cmp.Or(s.OneIn, 1000)
	s.Interval = cmp.Or(s.Interval, setting.Duration(30*time.Second))
	s.HeaderLen = cmp.Or(s.HeaderLen, 128)
	return s
}

// Collector is the address of a collector.
type Collector struct{ netip.AddrPort }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Collector) UnmarshalText(b []byte) error {
	*c = Collector{}
	text := string(b)
	if text == "" {
		return nil
	}
	to, err := netip.ParseAddrPort(text)
	if err != nil {
		addr, e := netip.ParseAddr(text)
		to, err = netip.AddrPortFrom(addr, sflow.Port), e
	}
	switch {
	case err != nil:
		return fmt.Errorf("%q is not the address of a collector; write it as 192.0.2.1, 192.0.2.1:6343 or [2001:db8::1]:6343", text)
	case to.Port() == 0 || to.Addr().IsUnspecified():
		return fmt.Errorf("nothing can be sent to %q; name the collector's address, and a port if it is not %d", text, sflow.Port)
	}
	c.AddrPort = to
	return nil
}

// MarshalText writes the address with its port.
func (c Collector) MarshalText() ([]byte, error) {
	if !c.IsValid() {
		return nil, nil
	}
	return c.AddrPort.MarshalText()
}

// PortSettings are the settings of each port.
type PortSettings struct {
	OneIn OneIn `json:"sflow,omitempty" arg:"N|off" default:"as --sflow-rate of the switch" help:"draw one of so many frames that the port receives for sFlow, or none"`
}

// OneIn is a rate of samples: "", "off" or a number.
type OneIn string

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *OneIn) UnmarshalText(b []byte) error {
	text := string(b)
	if n, err := strconv.ParseUint(text, 10, 32); text != "" && text != "off" && (err != nil || n < 1 || n > vswitch.MaxOneIn || text[0] == '0') {
		return fmt.Errorf("%q is not how many frames to draw one from; write a number from 1 to %d, or off", text, vswitch.MaxOneIn)
	}
	*o = OneIn(text)
	return nil
}

// of returns the number, given the switch's; 0: none is drawn.
func (o OneIn) of(usual uint32) uint32 {
	switch o {
	case "":
		return usual
	case "off":
		return 0
	}
	n, _ := strconv.ParseUint(string(o), 10, 32) // it is a number
	return uint32(n)
}

// Feature describes sFlow.
var Feature = feature.Feature{
	Name:   "sflow",
	Help:   "sends samples of frames and counters of ports to collectors",
	Off:    "sFlow is off; `vswitch set --sflow-collector ADDRESS` turns it on",
	Switch: Settings{},
	Port:   PortSettings{},
	On:     func(s any) bool { return len(s.(Settings).Collectors) > 0 },
	New:    func(h feature.Host, s any) (feature.Instance, error) { return start(h, s.(Settings)) },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/sflow", Help: "The collectors of sFlow and the sampled ports", Answer: Status{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*agent).status(), nil },
	}},
	Commands: []feature.Command{command},
}

// Status is what the API says about sFlow.
type Status struct {
	Agent      netip.Addr        `json:"agent,omitzero"`
	SubAgent   uint32            `json:"sub_agent"`
	Collectors []CollectorStatus `json:"collectors"`
	Ports      []PortStatus      `json:"ports"`
}

// CollectorStatus is what was sent to a collector.
type CollectorStatus struct {
	Address   Collector `json:"address"`
	Datagrams uint64    `json:"datagrams"`
	Errors    uint64    `json:"errors"`          // datagrams that could not be sent
	Error     string    `json:"error,omitempty"` // why the last one could not
}

// PortStatus is a port as collectors see it.
type PortStatus struct {
	Name    string `json:"name"`
	Index   uint32 `json:"index"`  // its ifIndex
	OneIn   uint32 `json:"one_in"` // 0: it is not sampled
	Samples uint32 `json:"samples"`
	Lost    uint32 `json:"lost"`  // samples for which there was no room
	Drops   uint32 `json:"drops"` // notifications of dropped frames
}
