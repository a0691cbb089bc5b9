package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// portFlags are the settings of ports that can also be changed later.
func portFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "owner", Usage: "tap: `USER` who may open the device, by name or number"},
		&cli.StringFlag{Name: "group", Usage: "tap: `GROUP` who may open the device, by name or number"},
		&cli.IntFlag{Name: "mtu", Usage: "longest payload in `BYTES`", DefaultText: "the device's own"},
		&cli.StringSliceFlag{Name: "address", Usage: "host: `ADDRESS/LENGTH` of the host's end; can be given several times"},
		&cli.StringFlag{Name: "netns", Usage: "host: network namespace for the host's end, `NAME` or path"},
		&cli.BoolFlag{Name: "exclusive", Usage: "netdev: hide the interface's frames from the host's own stack"},
		&cli.StringFlag{Name: "poll", Usage: "vhost-user: `HOW` to wait for frames: adaptive, or busy on processors of its own", DefaultText: "adaptive"},

		&cli.IntFlag{Name: "access", Usage: "VLAN: carry untagged frames of this `VID`", DefaultText: "none"},
		&cli.StringFlag{Name: "trunk", Usage: "VLAN: carry tagged frames of these VLANs, a `LIST` as 10,20-29, or all"},
		&cli.IntFlag{Name: "native", Usage: "VLAN: `VID` of a trunk's untagged frames", DefaultText: "such frames are refused"},
		&cli.StringFlag{Name: "trunk-tpid", Usage: "VLAN: `TPID` of a trunk's tags: 0x8100 or 0x88a8", DefaultText: "0x8100"},
		&cli.IntFlag{Name: "qinq", Usage: "VLAN: carry all frames, whatever their tag, under the service VLAN `SVID`", DefaultText: "none"},
		&cli.StringFlag{Name: "accept", Usage: "VLAN: take `WHICH` frames: all, tagged or untagged", DefaultText: "access: untagged, others: all"},

		&cli.BoolFlag{Name: "isolated", Usage: "exchange no frame with other isolated ports"},
		&cli.BoolFlag{Name: "locked", Usage: "take frames only from stations with an FDB entry at the port"},
		&cli.StringFlag{Name: "learning", Usage: "learn stations: `on|off`", DefaultText: "on"},
		&cli.StringFlag{Name: "flood", Usage: "flood to the port a `LIST` of " + strings.Join(port.FloodClasses, ",") + " (unknown), or all, none", DefaultText: "all"},
		&cli.IntFlag{Name: "learn-limit", Usage: "most stations that are learned: `N`, 0 for any number", DefaultText: "0"},
		&cli.StringFlag{Name: "learn-action", Usage: "`WHAT` becomes of frames from further stations: forward, protect (drop them) or shutdown (of the port)", DefaultText: "forward"},
		&cli.StringFlag{Name: "storm-broadcast", Usage: "most broadcasts that come in: a `RATE` as 100pps or 10mbit, or off", DefaultText: "off"},
		&cli.StringFlag{Name: "storm-multicast", Usage: "most multicasts that come in: a `RATE`", DefaultText: "off"},
		&cli.StringFlag{Name: "storm-unicast", Usage: "most frames to unknown stations that come in: a `RATE`", DefaultText: "off"},
		&cli.StringFlag{Name: "storm-action", Usage: "`WHAT` a storm causes beside drops: drop (nothing) or shutdown (of the port)", DefaultText: "drop"},
		&cli.StringFlag{Name: "rate-in", Usage: "drop what comes in beyond a `RATE`", DefaultText: "off"},
		&cli.StringFlag{Name: "rate-out", Usage: "slow down what leaves to a `RATE`", DefaultText: "off"},

		&cli.StringFlag{Name: "stp-edge", Usage: "spanning tree: no bridge is behind the port: `auto|on|off`", DefaultText: "netdev: auto, others: on"},
		&cli.StringFlag{Name: "bpdu-guard", Usage: "spanning tree: shut the port down when a bridge speaks: `on|off`", DefaultText: "netdev: off, others: on"},
		&cli.BoolFlag{Name: "root-guard", Usage: "spanning tree: never let the root be behind the port"},
		&cli.BoolFlag{Name: "bpdu-filter", Usage: "spanning tree: neither send nor take BPDUs"},
		&cli.UintFlag{Name: "stp-cost", Usage: "spanning tree: path cost `N`, 0 for by speed", DefaultText: "0"},
		&cli.UintFlag{Name: "stp-priority", Usage: "spanning tree: priority `N` of the port, in steps of 16", DefaultText: "128"},
		&cli.BoolFlag{Name: "mcast-fast-leave", Usage: "multicast: a group ends with the first leave; for ports with one listener"},
		&cli.BoolFlag{Name: "mcast-router", Usage: "multicast: a router is behind the port"},
		&cli.IntFlag{Name: "mcast-limit", Usage: "multicast: most groups that the port can join: `N`, 0 for any number", DefaultText: "0"},
		&cli.StringFlag{Name: "mcast-router-guard", Usage: "multicast: drop queries and all else that only routers send: `auto|on|off`", DefaultText: "auto: netdev off, others on"},
	}
}

// settings returns what the flags on the command line set; the rest is nil. What
// only contradicts other settings is for the daemon to find.
func settings(c *cli.Context) (api.SetPort, error) {
	r := settingsReader{Context: c}
	var s api.SetPort
	given(c, "owner", &s.Owner, c.String)
	given(c, "group", &s.Group, c.String)
	given(c, "mtu", &s.MTU, c.Int)
	given(c, "address", &s.Address, func(string) []string { return addresses(c) })
	given(c, "netns", &s.Netns, c.String)
	given(c, "exclusive", &s.Exclusive, c.Bool)
	given(c, "poll", &s.Poll, r.oneOf(port.PollAdaptive, port.PollBusy))

	if c.Bool("no-vlan") {
		if c.IsSet("access") || c.IsSet("trunk") || c.IsSet("qinq") {
			return s, usagef("--no-vlan takes VLANs off the port; leave --access, --trunk and --qinq out")
		}
		s.Access, s.Trunk, s.QinQ = new(uint16), new(string), new(uint16)
	}
	given(c, "access", &s.Access, r.vid)
	given(c, "trunk", &s.Trunk, r.vlans)
	given(c, "native", &s.Native, r.vid)
	given(c, "trunk-tpid", &s.TrunkTPID, r.oneOf("0x8100", "0x88a8"))
	given(c, "qinq", &s.QinQ, r.vid)
	given(c, "accept", &s.Accept, r.oneOf("all", "tagged", "untagged"))

	given(c, "isolated", &s.Isolated, c.Bool)
	given(c, "locked", &s.Locked, c.Bool)
	given(c, "learning", &s.NoLearning, func(f string) bool { return r.oneOf("on", "off")(f) == "off" })
	given(c, "flood", &s.NoFlood, r.noFlood)
	given(c, "learn-limit", &s.LearnLimit, c.Int)
	given(c, "learn-action", &s.LearnAction, r.oneOf("forward", "protect", "shutdown"))
	given(c, "storm-broadcast", &s.StormBroadcast, r.rate)
	given(c, "storm-multicast", &s.StormMulticast, r.rate)
	given(c, "storm-unicast", &s.StormUnicast, r.rate)
	given(c, "storm-action", &s.StormAction, r.oneOf("drop", "shutdown"))
	given(c, "rate-in", &s.RateIn, r.rate)
	given(c, "rate-out", &s.RateOut, r.rate)

	given(c, "stp-edge", &s.Edge, r.oneOf("auto", "on", "off"))
	given(c, "bpdu-guard", &s.BPDUGuard, r.oneOf("on", "off"))
	given(c, "root-guard", &s.RootGuard, c.Bool)
	given(c, "bpdu-filter", &s.BPDUFilter, c.Bool)
	given(c, "stp-cost", &s.STPCost, func(f string) uint32 { return uint32(r.upTo(f, 200_000_000)) })
	given(c, "stp-priority", &s.STPPriority, func(f string) uint8 { return uint8(r.upTo(f, 240)) })
	given(c, "mcast-fast-leave", &s.FastLeave, c.Bool)
	given(c, "mcast-router", &s.RouterPort, c.Bool)
	given(c, "mcast-limit", &s.GroupLimit, c.Int)
	given(c, "mcast-router-guard", &s.RouterGuard, r.oneOf("auto", "on", "off"))
	return s, r.err
}

// given sets to to the value of a flag that is on the command line.
func given[T any](c *cli.Context, flag string, to **T, value func(string) T) {
	if c.IsSet(flag) {
		v := value(flag)
		*to = &v
	}
}

// settingsReader reads flags' values and keeps the first error.
type settingsReader struct {
	*cli.Context
	err error
}

func (r *settingsReader) fail(flag string, err error) {
	if r.err == nil {
		r.err = usagef("--%s: %v", flag, err)
	}
}

// vid reads a VLAN; 0 takes it back.
func (r *settingsReader) vid(flag string) uint16 {
	v := r.Int(flag)
	if v != 0 {
		if err := port.CheckVID(v); err != nil {
			r.fail(flag, err)
			return 0
		}
	}
	return uint16(v)
}

func (r *settingsReader) vlans(flag string) string {
	text := r.String(flag)
	if text == "" {
		return ""
	}
	set, err := port.ParseVLANSet(text)
	if err != nil {
		r.fail(flag, err)
	}
	return set.String()
}

func (r *settingsReader) oneOf(choices ...string) func(flag string) string {
	return func(flag string) string {
		v := r.String(flag)
		if v != "" && !slices.Contains(choices, v) {
			r.fail(flag, usagef("there is no %q; use %s", v, strings.Join(choices, ", ")))
		}
		return v
	}
}

// noFlood returns what --flood leaves out.
func (r *settingsReader) noFlood(flag string) []string {
	var flood []string
	switch text := r.String(flag); text {
	case "", "all":
		return []string{} // nil would be null in JSON: nothing to change
	case "none":
	default:
		flood = strings.Split(text, ",")
	}
	for _, class := range flood {
		if !slices.Contains(port.FloodClasses, class) {
			r.fail(flag, usagef("%q is not flooded; name some of %s, or all, none", class, strings.Join(port.FloodClasses, ",")))
		}
	}
	return slices.DeleteFunc(slices.Clone(port.FloodClasses), func(class string) bool { return slices.Contains(flood, class) })
}

func (r *settingsReader) rate(flag string) port.Rate {
	rate, err := port.ParseRate(r.String(flag))
	if err != nil {
		r.fail(flag, err)
	}
	return rate
}

func (r *settingsReader) upTo(flag string, limit uint) uint {
	v := r.Uint(flag)
	if v > limit {
		r.fail(flag, usagef("%d is too much; use 0 to %d", v, limit))
	}
	return v
}

// addresses returns what --address was given, "" standing for none.
func addresses(c *cli.Context) []string {
	all := []string{}
	for _, a := range c.StringSlice("address") {
		if a != "" {
			all = append(all, a)
		}
	}
	return all
}
