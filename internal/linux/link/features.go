package link

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and the string set of SIOCETHTOOL (include/uapi/linux/ethtool.h).
const (
	ethtoolGetStrings  = 0x1b
	ethtoolGetSetInfo  = 0x37
	ethtoolGetFeatures = 0x3a
	ethtoolSetFeatures = 0x3b
	ethtoolFeatureSet  = 4 // ETH_SS_FEATURES

	stringLen = 32 // ETH_GSTRING_LEN

	// maxFeatures bounds the number of features that the kernel reports: 64 today.
	maxFeatures = 1024
)

// TurnOff turns off the given features, by the names that `ethtool -k` shows, and returns
// those that it changed. It skips features that are fixed; a feature that the interface or
// the kernel lacks counts as off.
func (l Link) TurnOff(features ...string) (were []string, err error) {
	return l.setFeatures(features, false, false)
}

// WouldTurnOff returns which of the features TurnOff would change.
func (l Link) WouldTurnOff(features ...string) (are []string, err error) {
	return l.setFeatures(features, false, true)
}

// TurnOn turns features on again.
func (l Link) TurnOn(features ...string) error {
	_, err := l.setFeatures(features, true, false)
	return err
}

// setFeatures turns the changeable ones of the features on or off unless it is dry, and returns those that
// it changed.
func (l Link) setFeatures(names []string, on, dry bool) (changed []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	e := ethtool{fd: fd, index: l.Index}
	known, err := e.features()
	if err != nil {
		return nil, l.explainFeatures(err)
	}
	// Blocks of 32 features: available, requested, active, never changed.
	get := make([]uint32, 2+4*((len(known)+31)/32))
	get[0], get[1] = ethtoolGetFeatures, uint32((len(known)+31)/32)
	if err := e.do(unsafe.Pointer(&get[0])); err != nil {
		return nil, l.explainFeatures(err)
	}
	// Blocks of 32 features: valid, requested.
	put := make([]uint32, 2+2*((len(known)+31)/32))
	put[0], put[1] = ethtoolSetFeatures, get[1]
	for _, name := range names {
		i := slices.Index(known, name)
		if i < 0 {
			continue
		}
		block, bit := get[2+4*(i/32):], uint32(1)<<(i%32)
		if block[0]&bit == 0 || block[3]&bit != 0 || (block[2]&bit != 0) == on {
			continue
		}
		put[2+2*(i/32)] |= bit
		if on {
			put[2+2*(i/32)+1] |= bit
		}
		changed = append(changed, name)
	}
	if len(changed) == 0 || dry {
		return changed, nil
	}
	if err := e.do(unsafe.Pointer(&put[0])); err != nil {
		return nil, l.explainFeatures(err)
	}
	return changed, nil
}

func (l Link) explainFeatures(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a device without features
	}
	return l.explain("change what "+l.Name+" offloads", err)
}

// ethtool asks a device by SIOCETHTOOL.
type ethtool struct{ fd, index int }

// do makes a request, which the kernel answers in place.
func (e ethtool) do(request unsafe.Pointer) error {
	var named unix.Ifreq
	named.SetUint32(uint32(e.index))
	if err := unix.IoctlIfreq(e.fd, unix.SIOCGIFNAME, &named); err != nil {
		return err
	}
	r := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: request}
	copy(r.name[:], named.Name())
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}

// features returns the names of all features that the kernel knows, by number.
func (e ethtool) features() ([]string, error) {
	info := [6]uint32{ethtoolGetSetInfo, 0, 1 << ethtoolFeatureSet} // the mask is of 64 bits
	if err := e.do(unsafe.Pointer(&info[0])); err != nil {
		return nil, err
	}
	n := info[4]
	if n == 0 || n > maxFeatures {
		return nil, fmt.Errorf("the kernel says that there are %d features", n)
	}
	b := make([]uint32, 3+n*stringLen/4)
	b[0], b[1], b[2] = ethtoolGetStrings, ethtoolFeatureSet, n
	if err := e.do(unsafe.Pointer(&b[0])); err != nil {
		return nil, err
	}
	if b[2] > n {
		return nil, fmt.Errorf("the kernel says that there are %d features, then %d", n, b[2])
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&b[3])), b[2]*stringLen)
	names := make([]string, b[2])
	for i := range names {
		names[i] = unix.ByteSliceToString(text[i*stringLen:][:stringLen])
	}
	return names, nil
}
