package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// filtered is the Linux bridge with rules that let each guest send from its own MAC and IPv4
// address alone, also in ARP: what libvirt's filter clean-traffic installs.
type filtered struct {
	bridge
	by string // nft or ebtables
}

func (f filtered) name() string { return bridgeName + "-" + f.by }

func (filtered) guards() bool { return true }

func (filtered) media() []medium { return []medium{byTAP} }

func (f filtered) version(ctx context.Context) (string, error) {
	is, err := f.bridge.version(ctx)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, f.by, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w; install the package %s", f.by, err, map[string]string{"nft": "nftables", "ebtables": "ebtables"}[f.by])
	}
	return is + ", " + strings.TrimSpace(string(out)), nil
}

func (f filtered) attach(ctx context.Context, l *lab, by medium, taps []string) error {
	if err := f.bridge.attach(ctx, l, by, taps); err != nil {
		return err
	}
	if f.by == "ebtables" {
		return f.ebtables(ctx, l, taps)
	}
	var rules, jumps strings.Builder
	for i, tap := range taps {
		mac, ip := macText(i), addressText(i)
		fmt.Fprintf(&rules, "chain %s {\n"+
			"ether saddr != %s drop\n"+
			"ether type ip ip saddr != %s drop\n"+
			"ether type arp arp saddr ether != %s drop\n"+
			"ether type arp arp saddr ip != %s drop\n"+
			"ether type { ip, arp, 0x8035 } accept\ndrop\n}\n", tap, mac, ip, mac, ip)
		fmt.Fprintf(&jumps, "%q : jump %s, ", tap, tap)
	}
	_, err := l.runInput(ctx, fmt.Sprintf("table bridge guests {\n%schain prerouting {\n"+
		"type filter hook prerouting priority -300; policy accept;\niifname vmap { %s }\n}\n}\n", &rules, strings.TrimSuffix(jumps.String(), ", ")), "nft", "-f", "-")
	return err
}

func (f filtered) ebtables(ctx context.Context, l *lab, taps []string) error {
	for i, tap := range taps {
		mac, ip := macText(i), addressText(i)
		for _, rule := range []string{
			"-N " + tap + " -P DROP", "-A PREROUTING -i " + tap + " -j " + tap,
			"-A " + tap + " -s ! " + mac + " -j DROP",
			"-A " + tap + " -p IPv4 --ip-src ! " + ip + " -j DROP",
			"-A " + tap + " -p ARP --arp-mac-src ! " + mac + " -j DROP",
			"-A " + tap + " -p ARP --arp-ip-src ! " + ip + " -j DROP",
			"-A " + tap + " -p IPv4 -j ACCEPT", "-A " + tap + " -p ARP -j ACCEPT", "-A " + tap + " -p 0x8035 -j ACCEPT",
		} {
			if _, err := l.run(ctx, "ebtables", append([]string{"-t", "nat"}, strings.Fields(rule)...)...); err != nil {
				return err
			}
		}
	}
	return nil
}
