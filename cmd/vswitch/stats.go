package main

import (
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show what ports carried, and why frames were dropped",
		UsageText: "vswitch stats [NAME] [-o json]",
		Description: `Shows the counters of one port or of all. rx is what came into the switch by the
port, tx what left by it. Each frame that was not delivered is counted once, at
the port where it was lost, by its reason.

Example:

    vswitch stats vm0`,
		Action: steering(portStats, "[NAME]"),
	}
}

// stats are a port's counters, as -o json prints them.
type stats struct {
	Name string       `json:"name"`
	RX   api.Counters `json:"rx"`
	TX   api.Counters `json:"tx"`
}

func portStats(c *cli.Context, cl *api.Client, args []string) error {
	if args[0] != "" {
		p, err := cl.Port(c.Context, args[0])
		if err != nil {
			return err
		}
		return show(c, stats{p.Name, p.RX, p.TX}, func(w io.Writer) { printStats(w, p) })
	}
	ports, err := cl.Ports(c.Context)
	if err != nil {
		return err
	}
	all := []stats{}
	for _, p := range ports {
		all = append(all, stats{p.Name, p.RX, p.TX})
	}
	return show(c, all, func(w io.Writer) {
		for i, p := range ports {
			if i > 0 {
				row(w)
			}
			printStats(w, p)
		}
	})
}

func printStats(w io.Writer, p api.Port) {
	row(w, "Port "+p.Name, "FRAMES", "BYTES", "")
	row(w, "  rx", p.RX.Frames, p.RX.Bytes, "came into the switch")
	if p.RX.Copies > 0 {
		row(w, "  rx copies", p.RX.Copies, "", "made of them to reach more than one port")
	}
	printDrops(w, "rx", p.Name, p.RX)
	row(w, "  tx", p.TX.Frames, p.TX.Bytes, "left the switch")
	printDrops(w, "tx", p.Name, p.TX)
}

func printDrops(w io.Writer, direction, name string, c api.Counters) {
	for _, why := range slices.Sorted(maps.Keys(c.Dropped)) {
		words := strings.ReplaceAll(dropWords[why], "DEV", name)
		row(w, "  "+direction+" "+why, c.Dropped[why], "", dash(words))
	}
}

// dropWords says what each reason for a drop means; DEV stands for the port's name.
var dropWords = map[string]string{
	port.DropRunt.String():           "dropped: shorter than an Ethernet header",
	port.DropOversize.String():       "dropped: longer than a frame can be",
	port.DropBadOffload.String():     "dropped: its offload header contradicts the frame",
	port.DropUnsupported.String():    "dropped: an offload that packet sockets cannot express; turn it off: `ethtool -K DEV lro off gro off`, or `ethtool -K ... gso off` at the sender",
	port.DropBadSource.String():      "dropped: its source address is zero or a group's",
	port.DropReserved.String():       "dropped: to an address that no bridge forwards (01:80:c2:00:00:0x)",
	port.DropPortDown.String():       "dropped: the port was not forwarding",
	port.DropBlocked.String():        "dropped: spanning tree keeps the port from forwarding",
	port.DropVLANTagged.String():     "dropped: tagged, on a port that takes untagged frames only",
	port.DropVLANUntagged.String():   "dropped: untagged, on a port without a VLAN for those",
	port.DropVLANFiltered.String():   "dropped: of a VLAN that the port does not carry",
	port.DropLocked.String():         "dropped: from a station that the locked port does not know",
	port.DropLearnLimit.String():     "dropped: from a new station, on a port that has as many as it may",
	port.DropStormBroadcast.String(): "dropped: more broadcasts than the port's limit",
	port.DropStormMulticast.String(): "dropped: more multicasts than the port's limit",
	port.DropStormUnicast.String():   "dropped: more frames to unknown stations than the port's limit",
	port.DropPoliced.String():        "dropped: more than the port's ingress rate",
	port.DropIsolated.String():       "dropped: from one isolated port to another",
	port.DropMirrorTarget.String():   "dropped: from or to a port that mirrored frames leave by",
	port.DropConsumed.String():       "not forwarded: taken by the switch itself, for a protocol that it speaks",
	port.DropControlFull.String():    "dropped: for the switch itself, which was behind",
	port.DropSamePort.String():       "dropped: its destination is behind the port it came by",
	port.DropNoDestination.String():  "dropped: no other port was there to take it",
	port.DropLocal.String():          "dropped: to an address of the switch itself",
	port.DropRxOverrun.String():      "dropped: came faster than the switch could read",
	port.DropQueueFull.String():      "dropped: the receiver was behind: its queue was full",
	port.DropTooBig.String():         "dropped: longer than the port's MTU allows",
	port.DropNoCarrier.String():      "dropped: nobody held the other end",
	port.DropPortClosed.String():     "dropped: the port was closed meanwhile",
	port.DropMemoryGone.String():     "dropped: its sender took away the memory that it lay in",
	port.DropShaped.String():         "dropped: waited in vain: the port's egress queue was full",
	port.DropIOError.String():        "dropped: the kernel refused it",
}
