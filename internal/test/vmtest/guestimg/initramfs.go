package guestimg

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// modules are the modules that a guest needs for its NIC, for VLAN devices, for bonds, for
// virtual routers, for TAPs, for containers, for tunnels and for rates, in loading order. Those that a kernel has built in, or lacks, are left out.
var modules = []string{
	"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_mmio",
	"failover", "net_failover", "virtio_net",
	"llc", "stp", "garp", "mrp", "8021q",
	"tls", "bonding", "macvlan", "tun", "veth", "udp_tunnel", "ip6_udp_tunnel", "geneve",
	"sch_htb", "sch_fq_codel",
}

// tools are a guest's programs beside busybox, each with its Debian package. Their libraries
// are included.
var tools = []tool{
	{"iperf3", "iperf3"},
	{"ethtool", "ethtool"},
}

type tool struct{ name, pkg string }

// initramfs builds the archive from programs of this machine and the modules of an unpacked
// kernel. It also returns a key that changes with the contents.
func initramfs(kernel string, programs []string) (archive []byte, key string, err error) {
	var buf bytes.Buffer
	c := newCPIO(&buf)
	for _, d := range []string{"bin", "dev", "modules", "usr/bin", "usr/sbin"} {
		c.Dir(d)
	}
	c.CharDevice("dev/console", 0o600, 5, 1) // the kernel opens it before it starts init
	c.File("init", 0o755, initScript)

	busybox, err := staticBusybox()
	if err != nil {
		return nil, "", err
	}
	c.File("bin/busybox", 0o755, busybox)
	c.Link("bin/sh", "busybox")

	files, err := moduleFiles(kernel)
	if err != nil {
		return nil, "", err
	}
	var order strings.Builder
	for _, m := range modules {
		path, ok := files[m]
		if !ok {
			continue
		}
		packed, err := os.ReadFile(path)
		if err != nil {
			return nil, "", err
		}
		data, err := decompress(packed)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", path, err)
		}
		c.File("modules/"+m+".ko", 0o644, data)
		fmt.Fprintf(&order, "%s.ko\n", m)
	}
	c.File("modules/order", 0o644, []byte(order.String()))

	added := map[string]bool{}
	wanted := slices.Clone(tools)
	for _, p := range programs {
		wanted = append(wanted, tool{p, p})
	}
	for _, t := range wanted {
		path, err := exec.LookPath(t.name)
		if err != nil {
			return nil, "", fmt.Errorf("%s is missing; apt-get install %s", t.name, t.pkg)
		}
		files, err := withLibraries(path)
		if err != nil {
			return nil, "", err
		}
		for _, f := range files {
			if added[f] {
				continue
			}
			added[f] = true
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, "", err
			}
			inside := strings.TrimPrefix(f, "/")
			c.Dir(filepath.Dir(inside))
			c.File(inside, 0o755, data)
		}
	}
	if err := c.Close(); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(buf.Bytes())
	return buf.Bytes(), hex.EncodeToString(sum[:8]), nil
}

func staticBusybox() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox is missing; apt-get install busybox-static")
	}
	// A static program has no interpreter and needs no library.
	if out, err := exec.Command("ldd", path).CombinedOutput(); err == nil && !strings.Contains(string(out), "statically linked") {
		return nil, fmt.Errorf("%s needs shared libraries; apt-get install busybox-static in its place", path)
	}
	return os.ReadFile(path)
}

// withLibraries returns path and the library files that ldd finds for it.
func withLibraries(path string) ([]string, error) {
	out, err := exec.Command("ldd", path).CombinedOutput()
	if strings.Contains(string(out), "not a dynamic executable") {
		return []string{path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", path, err, lastLine(out))
	}
	return append([]string{path}, libraries(string(out))...), nil
}

// libraries parses ldd's lines: "libc.so.6 => /lib/libc.so.6 (0x…)" for a library,
// "/lib64/ld-linux-x86-64.so.2 (0x…)" for the loader.
func libraries(ldd string) []string {
	var files []string
	for line := range strings.Lines(ldd) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
	}
	return files
}
