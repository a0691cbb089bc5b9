package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// bridge is the Linux bridge with the defaults of `ip link add type bridge`.
type bridge struct{}

const bridgeName = "bridge"

func (bridge) name() string { return bridgeName }

func (bridge) media() []medium { return []medium{byTAP, byVeth, byVXLAN} }

func (bridge) makesTAPs() bool { return false }

func (bridge) version(context.Context) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return "Linux bridge, kernel " + unix.ByteSliceToString(u.Release[:]), nil
}

func (bridge) attach(ctx context.Context, l *lab, _ medium, taps []string) error {
	var batch strings.Builder
	batch.WriteString("link add br0 type bridge\nlink set br0 up\n")
	for _, tap := range taps {
		fmt.Fprintf(&batch, "link set %s master br0\n", tap)
	}
	_, err := l.runInput(ctx, batch.String(), "ip", "-batch", "-")
	return err
}

// adjust implements adjustable. The bridge has no storm limits of its own: nftables limits in its place,
// at the hook before the bridge. So it does for a rate where the kernel has no act_police.
func (bridge) adjust(ctx context.Context, l *lab, w work) error {
	tc := func(line string) error {
		_, err := l.run(ctx, "tc", strings.Fields(line)...)
		return err
	}
	ip := func(line string) error {
		_, err := l.run(ctx, "ip", strings.Fields(line)...)
		return err
	}
	const all = " ingress protocol all u32 match u32 0 0 action " // every kernel with tc has it
	switch w.With {
	case rateIn:
		for i := range w.Ports {
			if err := tc("qdisc add dev " + guestName(i) + " clsact"); err != nil {
				return err
			}
			if tc("filter add dev "+guestName(i)+all+"police rate 30gbit burst 10mb conform-exceed drop") != nil {
				return limit(ctx, l, w.Ports, "limit rate over 3750 mbytes/second burst 10 mbytes drop")
			}
		}
	case storm:
		return limit(ctx, l, w.Ports, "meta pkttype broadcast limit rate over 1000/second burst 1000 packets drop",
			"meta pkttype multicast limit rate over 1000/second burst 1000 packets drop")
	case mirrored:
		return cmp.Or(tc("qdisc add dev vm0 clsact"), tc("filter add dev vm0"+all+"mirred egress mirror dev "+guestName(w.Ports-1)),
			tc(strings.Replace("filter add dev vm0"+all, "ingress", "egress", 1)+"mirred egress mirror dev "+guestName(w.Ports-1)))
	case unlearned:
		return ip("link set dev vm0 type bridge_slave learning off")
	case snooping:
		// It filters once hosts had the time to answer its query.
		if err := ip("link set dev br0 type bridge mcast_snooping 1 mcast_query_response_interval 100 mcast_querier 1"); err != nil {
			return err
		}
		for i := range members {
			if _, err := l.run(ctx, "bridge", "mdb", "add", "dev", "br0", "port", guestName(i+1), "grp", groupAddress.String(), "permanent"); err != nil {
				return err
			}
		}
	case rateOut:
		return cmp.Or(tc("qdisc replace dev vm1 root handle 1: htb default 1"),
			tc("class add dev vm1 parent 1: classid 1:1 htb rate 1gbit burst 2500kb cburst 2500kb quantum 65536"))
	}
	return nil
}

// limit gives each guest's port rules of its own for what it receives.
func limit(ctx context.Context, l *lab, ports int, rules ...string) error {
	var table strings.Builder
	table.WriteString("table netdev limits {\n")
	for i := range ports {
		fmt.Fprintf(&table, "chain %[1]s {\ntype filter hook ingress device %[1]s priority 0; policy accept;\n%[2]s\n}\n",
			guestName(i), strings.Join(rules, "\n"))
	}
	table.WriteString("}\n")
	_, err := l.runInput(ctx, table.String(), "nft", "-f", "-")
	return err
}
