// Package arch holds the packages of the project to the direction in which they may
// import each other. It has tests only.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vswitch/vswitch"

// below says for each package which others of the project it may import. A pattern
// is as in path.Match; the first that matches a package counts. What does I/O
// stands in internal/ packages of its own, under the port kinds:
//
//	cmd/vswitch → internal/daemon → switch → fdb, port, internal/packet/eth, internal/virtio/vnet
//	cmd/vswitch → port kinds → internal/linux/{afpacket,tuntap,link,hoststack} → port
var below = []struct {
	pkg string
	may []string
}{
	{"port", []string{"internal/setting", "internal/qemu"}},
	{"internal/qemu", nil},
	{"internal/libvirt", []string{"port"}},
	{"internal/setting", nil},
	{"fdb", nil},
	{"internal/packet/eth", nil},
	{"internal/virtio/vnet", []string{"port", "internal/packet/eth"}},
	{"switch", []string{"fdb", "port", "internal/packet/eth", "internal/virtio/vnet"}},
	{"api", []string{"port"}},

	{"internal/linux/link", nil},
	{"internal/linux/shape", []string{"internal/linux/link"}},
	{"internal/linux/hoststack", []string{"port", "internal/linux/link"}},
	{"internal/linux/owner", []string{"port", "internal/linux/link", "internal/files/flock"}},
	{"internal/linux/nic", []string{"port", "internal/linux/afpacket", "internal/linux/hoststack", "internal/linux/link", "internal/linux/owner", "internal/linux/shape", "internal/linux/tuntap"}},
	{"internal/linux/mmsg", nil},
	{"internal/linux/routing", nil},
	{"internal/linux/account", nil},
	{"internal/files/sockfile", []string{"internal/linux/account"}},
	{"internal/files/flock", nil},
	{"internal/files/durable", nil},
	{"internal/files/durable/durabletest", []string{"internal/files/durable"}},
	{"internal/logqueue", nil},
	{"internal/handover", nil},
	{"internal/linux/sdnotify", nil},
	{"internal/linux/sandbox", nil},
	{"internal/linux/limits", nil},
	{"internal/linux/limits/atstart", nil},
	{"internal/rxbuf", []string{"port", "internal/virtio/vnet"}},
	{"internal/linux/afpacket", []string{"port", "internal/packet/eth", "internal/virtio/vnet", "internal/rxbuf", "internal/linux/mmsg", "internal/linux/link", "internal/linux/shape"}},
	{"internal/linux/tuntap", []string{"port", "internal/packet/eth", "internal/virtio/vnet", "internal/rxbuf", "internal/linux/link"}},
	{"internal/linux/tuntap/tuntest", []string{"port", "internal/virtio/vnet", "internal/test/testenv"}},
	{"internal/virtio/vhost/vhosttest", []string{"port", "internal/virtio/vnet", "internal/test/testenv", "internal/virtio/vhost"}},
	{"port/porttest", []string{"port", "internal/packet/eth", "internal/virtio/vnet", "internal/test/testenv"}},
	{"port/vxlan", []string{
		"port", "fdb", "internal/setting", "internal/packet/eth", "internal/virtio/vnet", "internal/linux/link", "internal/rxbuf", "internal/linux/mmsg",
		"internal/linux/afpacket", "internal/linux/hoststack", "internal/linux/nic", "internal/linux/owner",
	}},
	{"port/lag", []string{
		"port", "internal/setting", "internal/linux/afpacket", "internal/linux/hoststack", "internal/linux/link", "internal/linux/nic", "internal/linux/owner", "internal/proto/lacp",
	}},
	{"port/*", []string{
		"port", "internal/setting", "internal/qemu", "internal/packet/eth", "internal/virtio/vnet",
		"internal/linux/afpacket", "internal/linux/tuntap", "internal/linux/link", "internal/linux/shape", "internal/linux/nic", "internal/linux/owner", "internal/linux/hoststack", "internal/rxbuf", "internal/linux/mmsg", "internal/virtio/vhost", "internal/files/sockfile", "internal/linux/account",
	}},

	// The contract of features, and the features. None imports another, and protocols
	// that they run are packages of their own.
	{"internal/table", nil},
	{"internal/feature", []string{"api", "fdb", "port", "switch", "internal/setting", "internal/table"}},
	{"internal/feature/evpn", []string{"api", "fdb", "port", "switch", "internal/setting", "internal/table", "internal/feature", "internal/logqueue", "internal/proto/evpn", "internal/bgp", "internal/bfd"}},
	{"internal/clients", nil},
	{"internal/httpd", []string{"internal/clients"}},
	{"internal/feature/*", []string{"api", "fdb", "port", "switch", "internal/setting", "internal/table", "internal/httpd", "internal/feature", "internal/packet/*", "internal/proto/*"}},
	{"internal/daemon/store", []string{"port", "internal/setting", "internal/files/durable", "internal/files/flock"}},
	{"internal/daemon", []string{"api", "internal/clients", "internal/daemon/store", "internal/config", "internal/setting", "internal/feature", "switch", "fdb", "port", "internal/linux/link", "internal/linux/owner", "internal/files/sockfile", "internal/files/flock", "internal/files/durable", "internal/handover", "internal/linux/limits", "internal/rxbuf"}},
	{"internal/config", []string{"internal/setting", "port", "internal/packet/pfilter"}},
	{"internal/linux/fastpath", []string{"switch", "fdb", "port", "internal/files/flock", "internal/packet/eth", "internal/linux/link", "internal/linux/hoststack"}},
	{"internal/linux/losses", []string{"switch", "port"}},
	{"cmd/vswitch", []string{"internal/linux/limits/atstart", "api", "internal/table", "internal/qemu", "internal/libvirt", "internal/setting", "internal/feature", "internal/feature/*", "fdb", "internal/config", "internal/daemon", "internal/handover", "internal/linux/fastpath", "internal/linux/losses", "internal/linux/sandbox", "internal/linux/sdnotify", "internal/logqueue", "internal/linux/hoststack", "port", "port/*"}},

	{"cmd/vswitch-cni", []string{"api", "internal/files/flock", "internal/linux/link"}},

	{"internal/test/testenv", nil},
	{"internal/test/testenv/daemontest", []string{"api", "internal/handover", "internal/test/testenv"}},
	{"internal/test/vmtest", []string{"internal/test/testenv", "internal/test/vmtest/*"}},
	{"internal/test/vmtest/guestimg", []string{"internal/files/flock"}},
	{"internal/test/vmtest/*", nil},
	{"internal/test/vmtest/cmd/*", []string{"internal/test/vmtest/*"}},
	{"bench", []string{"switch", "fdb", "port", "port/memory", "internal/packet/eth", "internal/virtio/vnet"}},

	{"internal/bgp", []string{"internal/proto/evpn", "port", "internal/linux/routing"}},
	{"internal/bfd", []string{"internal/proto/bfd", "internal/linux/routing"}},

	// A protocol: frames and time in, frames and actions out.
	{"internal/proto/*", []string{"port", "internal/packet/*", "internal/virtio/vnet"}},
	{"internal/packet/*", []string{"port", "internal/packet/eth"}},
	{"internal/virtio/vhost", []string{"port", "internal/linux/limits"}},
	{"internal/virtio/*", []string{"port"}},
	{"qemu-examples/*", nil},
}

// outside says for each module outside the standard library, or package of one, which packages may
// import it. So the kernel's interfaces are touched in few places.
var outside = map[string][]string{
	"golang.org/x/sys": {
		"internal/linux/afpacket", "internal/linux/sandbox", "internal/linux/mmsg", "internal/linux/routing", "internal/linux/tuntap", "internal/linux/link", "internal/linux/hoststack", "internal/linux/fastpath", "internal/linux/losses", "internal/linux/shape", "internal/virtio/vhost",
		"port/unixsock", "port/vhostuser", "port/vxlan", "internal/files/sockfile", "internal/bgp", "internal/bfd",
		"internal/test/testenv", "internal/linux/tuntap/tuntest", "internal/virtio/vhost/vhosttest",
	},
	"golang.org/x/sys/cpu":                          {"internal/virtio/vnet"},
	"github.com/vishvananda/netlink":                {"internal/linux/link", "internal/linux/shape"},
	"github.com/cilium/ebpf":                        {"internal/linux/hoststack", "internal/linux/hoststack/hoststacktest", "internal/linux/fastpath", "internal/linux/losses", "internal/linux/shape"},
	"github.com/songgao/water":                      {"internal/linux/tuntap", "qemu-examples/hello-tap"},
	"github.com/urfave/cli":                         {"cmd/vswitch"},
	"github.com/xrash/smetrics":                     {"cmd/vswitch", "internal/config"},
	"github.com/landlock-lsm/go-landlock":           {"internal/linux/sandbox"},
	"github.com/elastic/go-seccomp-bpf":             {"internal/linux/sandbox"},
	"kernel.org/pub/linux/libs/security/libcap/psx": {"internal/linux/sandbox"},
	"github.com/goccy/go-yaml":                      {"internal/config"},
	"github.com/rogpeppe/go-internal":               {"cmd/vswitch"},
	"go.uber.org/goleak":                            {"port/porttest"},
	"github.com/osrg/gobgp":                         {"internal/bgp"},
	"github.com/prometheus/client_golang":           {"internal/feature/metrics"},
	"github.com/containernetworking/cni":            {"cmd/vswitch-cni"},
	"golang.org/x/term":                             {"cmd/vswitch"},
	"github.com/gopacket/gopacket":                  {"internal/packet/packettest"},
}

// noIO are the packages that make no system call, and doIO is what they therefore
// do not import; but port has net's type for a MAC address.
var (
	noIO = []string{
		"switch", "fdb", "port", "internal/packet/eth", "internal/virtio/vnet",
		"internal/libvirt",
		"internal/proto/stp", "internal/proto/mcast", "internal/proto/flap", "internal/proto/lldp", "internal/proto/sflow", "internal/proto/lacp", "internal/proto/evpn", "internal/proto/bfd", "internal/packet/pfilter", "internal/packet/brief", "internal/packet/pcapng",
		"internal/proto/guard", "internal/packet/arp", "internal/packet/ip", "internal/packet/ndp", "internal/packet/dhcp",
	}
	doIO = []string{"os", "os/exec", "syscall", "net", "net/http"}
)

type listed struct {
	ImportPath string
	Imports    []string // of the package without its tests
}

func packages(t *testing.T) []listed {
	t.Helper()
	// -e: a package that does not build is for the compiler to complain about.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(out); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImports(t *testing.T) {
	all := packages(t)
	if !slices.ContainsFunc(all, func(p listed) bool { return p.ImportPath == module+"/switch" }) {
		t.Fatalf("go list finds %d packages, without switch", len(all))
	}
	for _, p := range all {
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imported := range p.Imports {
			if problem := check(pkg, imported); problem != "" {
				t.Errorf("%s imports %s: %s", pkg, imported, problem)
			}
		}
	}
}

// check tells what is wrong when pkg imports another, "" if nothing.
func check(pkg, imported string) string {
	if inside, ok := strings.CutPrefix(imported, module+"/"); ok {
		for _, b := range below {
			if match(b.pkg, pkg) {
				if slices.ContainsFunc(b.may, func(m string) bool { return match(m, inside) }) {
					return ""
				}
				return "that is against the direction of imports"
			}
		}
		return "the package is not in the table of this test; put it there with what it may import"
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") {
		if slices.Contains(noIO, pkg) && slices.Contains(doIO, imported) && !(pkg == "port" && imported == "net") {
			return "the package makes no system call"
		}
		return ""
	}
	closest := ""
	for m := range outside {
		if (imported == m || strings.HasPrefix(imported, m+"/")) && len(m) > len(closest) {
			closest = m
		}
	}
	switch users := outside[closest]; {
	case slices.Contains(users, pkg):
		return ""
	case closest != "":
		return "only " + strings.Join(users, ", ") + " may"
	}
	return "the module is not in the table of this test; put it there with who may import it"
}

func match(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// The rules must be able to fail.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"switch", module + "/fdb", true},
		{"switch", module + "/port/tap", false},
		{"switch", module + "/internal/daemon", false},
		{"switch", "os", false},
		{"switch", "net", false},
		{"port", "net", true},
		{"switch", "sync/atomic", true},
		{"switch", "golang.org/x/sys/unix", false},
		{"fdb", module + "/port", false},
		{"fdb", "github.com/google/go-cmp/cmp", false},
		{"port", module + "/switch", false},
		{"port/tap", module + "/port", true},
		{"port/tap", module + "/port/host", false},
		{"port/tap", module + "/switch", false},
		{"api", module + "/switch", false},
		{"internal/daemon", module + "/port/tap", false},
		{"internal/daemon", module + "/switch", true},
		{"internal/proto/stp", module + "/internal/packet/eth", true},
		{"internal/proto/stp", module + "/switch", false},
		{"cmd/vswitch", module + "/port/tap", true},
		{"cmd/vswitch", module + "/internal/linux/tuntap", false},
		{"newcomer", module + "/switch", false},
		{"internal/linux/afpacket", "golang.org/x/sys/unix", true},
		{"internal/virtio/vnet", "golang.org/x/sys/cpu", true},
		{"internal/virtio/vnet", "golang.org/x/sys/unix", false},
		{"internal/daemon", "example.com/new", false},
	} {
		if problem := check(c.pkg, c.imported); (problem == "") != c.ok {
			t.Errorf("%s imports %s: %q", c.pkg, c.imported, problem)
		}
	}
}
