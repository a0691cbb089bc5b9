package daemon

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/files/durable"
	"github.com/vswitch/vswitch/port"
)

// identity gives the switch and the machines behind its ports unique addresses. All are
// derived from a random seed that is drawn once and kept in a file. The host's own properties
// would not do: cloned hosts share their machine id, their names and their socket paths.
//
// All methods except switchMAC and renew run on the manager's goroutine.
type identity struct {
	path string // of the file; empty: the identity is not kept
	log  *slog.Logger
	seed []byte
	identityFile

	// written is what the file has, and writing guards the file: the saver writes it again if it is gone.
	written atomic.Pointer[[]byte]
	writing sync.Mutex

	given map[string]port.MAC // address of each port's machine
	owner map[port.MAC]string
}

// identityFile is the content of the file. Without a seed, as in {}, it requests a new one.
type identityFile struct {
	Seed string  `json:"seed,omitempty"`
	Host machine `json:"host"`

	// Named lists ports whose machines have addresses derived from names alone: a former
	// version assigned those, and a machine keeps its address.
	Switch string   `json:"switch,omitempty"`
	Named  []string `json:"named,omitempty"`

	// Salt lists the ports whose first address was already taken.
	Salt map[string]int `json:"salt,omitempty"`
}

// machine identifies a host among its clones.
type machine struct {
	UUID string   `json:"uuid,omitempty"` // of the board, from its firmware
	MACs []string `json:"macs,omitempty"` // of its network devices
}

// maxMachineMACs limits the addresses kept of a host with many devices.
const maxMachineMACs = 64

// thisMachine describes the host, as far as this process can see it.
func thisMachine() machine {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	m := machine{UUID: read("/sys/class/dmi/id/product_uuid")}
	devices, _ := filepath.Glob("/sys/class/net/*/device") // only hardware has one
	for _, path := range devices {
		dir := filepath.Dir(path)
		const permanent = "0" // NET_ADDR_PERM: neither set nor random
		if mac := read(filepath.Join(dir, "address")); mac != "" && read(filepath.Join(dir, "addr_assign_type")) == permanent {
			m.MACs = append(m.MACs, mac)
		}
	}
	slices.Sort(m.MACs)
	m.MACs = m.MACs[:min(len(m.MACs), maxMachineMACs)]
	return m
}

// isOther reports whether b is certainly another host than a: its board and every network
// device differ. Either alone can be replaced.
func (a machine) isOther(b machine) bool {
	if a.UUID == "" || b.UUID == "" || a.UUID == b.UUID || len(a.MACs) == 0 || len(b.MACs) == 0 {
		return false
	}
	return !slices.ContainsFunc(a.MACs, func(mac string) bool { return slices.Contains(b.MACs, mac) })
}

// newIdentity returns a new identity that is not kept.
func newIdentity() *identity {
	id := &identity{log: slog.New(slog.DiscardHandler), given: make(map[string]port.MAC), owner: make(map[port.MAC]string)}
	id.draw()
	return id
}

func (id *identity) draw() {
	id.seed = make([]byte, 16)
	_, _ = rand.Read(id.seed) // never fails
	id.Seed = hex.EncodeToString(id.seed)
}

// openIdentity reads the identity from a file or creates it. saved are the ports of a former
// run, which derived addresses differently if the file is missing. The switch runs even if
// the file cannot be written.
func openIdentity(path, switchName string, saved []store.Port, log *slog.Logger) *identity {
	id := newIdentity()
	id.path, id.log = path, log
	if err := id.load(switchName, saved, thisMachine()); err != nil {
		log.Error("the addresses of this run are not kept: the next one will have others", "error", err)
	}
	return id
}

func (id *identity) load(switchName string, saved []store.Port, here machine) error {
	b, err := durable.ReadRegular(id.path)
	var was identityFile
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, p := range saved {
			id.Named = append(id.Named, p.Spec.Name)
		}
		if id.Named != nil {
			id.Switch = switchName
		}
	case err != nil:
		return err
	default:
		err = json.Unmarshal(b, &was)
		seed, bad := hex.DecodeString(was.Seed)
		switch {
		case err != nil || bad != nil || was.Seed != "" && len(seed) != len(id.seed):
			aside := id.path + ".corrupt"
			if err := os.Rename(id.path, aside); err != nil {
				return err
			}
			id.log.Error("the switch's identity could not be read: it and the machines behind its ports get new addresses", "kept_as", aside)
		case was.Seed == "":
			id.log.Warn("the switch gets a new identity: it and the machines behind its ports get new addresses", "file", id.path)
		case was.Host.isOther(here):
			id.log.Warn("the switch's state was copied from another host: it and the machines behind its ports get new addresses", "file", id.path)
		default:
			id.seed, id.identityFile = seed, was
			id.written.Store(&b)
			if here.UUID == was.Host.UUID && slices.Equal(here.MACs, was.Host.MACs) || here.UUID == "" || len(here.MACs) == 0 {
				return nil
			}
		}
	}
	id.Host = here
	return id.save()
}

// save replaces the file.
func (id *identity) save() error {
	if id.path == "" {
		return nil
	}
	b, err := json.MarshalIndent(id.identityFile, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	id.written.Store(&b)
	if err := id.write(b); err != nil {
		return fmt.Errorf("writing the switch's identity: %w", err)
	}
	return nil
}

func (id *identity) write(b []byte) error {
	id.writing.Lock()
	defer id.writing.Unlock()
	return durable.Replace(durable.Host{}, id.path, b)
}

// renew writes the file again if somebody deleted it: without it the next run would give the
// machines other addresses.
func (id *identity) renew() error {
	b := id.written.Load()
	if b == nil || id.path == "" {
		return nil
	}
	if _, err := os.Lstat(id.path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := id.write(*b); err != nil {
		return fmt.Errorf("writing the switch's identity: %w; %s", err, durable.Advice(err))
	}
	return nil
}

// derive hashes the seed with names. A zero byte, which no name has, keeps them apart.
func (id *identity) derive(names ...string) []byte {
	h := sha256.New()
	h.Write(id.seed)
	for _, name := range names {
		h.Write(append([]byte{0}, name...))
	}
	return h.Sum(nil)
}

// switchMAC returns the switch's own address.
func (id *identity) switchMAC() port.MAC {
	h := id.derive("switch")
	// A locally administered address of one station (802-2014 clause 8.2.2).
	h[0] = h[0]&^0x03 | 0x02
	return port.MACFrom(h)
}

// guestMAC returns the address for the machine behind a port, in QEMU's range 52:54:00. It is
// the same on each call, and no two ports of the switch share one.
func (id *identity) guestMAC(name string) port.MAC {
	if mac, ok := id.given[name]; ok {
		return mac
	}
	salt := id.Salt[name]
	mac := id.candidate(name, salt)
	for id.owner[mac] != "" {
		salt++
		mac = id.candidate(name, salt)
	}
	if salt != id.Salt[name] {
		if id.Salt == nil {
			id.Salt = make(map[string]int)
		}
		id.Salt[name] = salt
		if err := id.save(); err != nil {
			id.log.Error("the address of a port's machine is not kept", "port", name, "error", err)
		}
	}
	id.given[name], id.owner[mac] = mac, name
	return mac
}

func (id *identity) candidate(name string, salt int) port.MAC {
	var h []byte
	switch {
	case salt > 0:
		h = id.derive("machine", name, fmt.Sprint(salt))
	case slices.Contains(id.Named, name):
		sum := sha256.Sum256([]byte(id.Switch + "\x00" + name))
		h = sum[:]
	default:
		h = id.derive("machine", name)
	}
	return port.MACFrom([]byte{0x52, 0x54, 0x00, h[0], h[1], h[2]})
}

// release frees the address of a removed port.
func (id *identity) release(name string) {
	delete(id.owner, id.given[name])
	delete(id.given, name)
}
