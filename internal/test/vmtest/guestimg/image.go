// Package guestimg builds what a small x86-64 virtual machine boots from: the distribution's
// kernel, downloaded and unpacked but not installed, and an initramfs of busybox, iperf3 and
// ethtool. Later runs reuse what was built. Any number of goroutines and processes may call
// it concurrently.
package guestimg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vswitch/vswitch/internal/files/flock"
)

// Image is a kernel and an initramfs on disk, for QEMU's -kernel and -initrd.
type Image struct {
	Kernel string // an ELF vmlinux, which QEMU starts at its PVH entry
	Initrd string // an uncompressed cpio archive
}

// CacheDir returns the directory of the images: $VSWITCH_CACHE, or else .cache beside the
// go.mod above the working directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("VSWITCH_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory; set VSWITCH_CACHE to a directory for guest images")
		}
		dir = filepath.Dir(dir)
	}
}

// Ensure returns the image in cache and builds missing parts. In the guest are also these
// programs of the machine, with their libraries. The first call on a machine
// downloads some tens of megabytes; the kernel then stays the same until the directory is
// removed.
func Ensure(cache string, programs ...string) (Image, error) {
	return EnsureKernel(cache, "", programs...)
}

// EnsureKernel is Ensure with the kernel of a package; without one of that name, and for "", with
// the distribution's own.
func EnsureKernel(cache, metaPackage string, programs ...string) (Image, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Image{}, err
	}
	lock, err := flock.Await(filepath.Join(cache, "guest.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return Image{}, err
	}
	defer lock.Close()

	kernel, wanted := filepath.Join(cache, "guest-kernel"), metaPackages
	if metaPackage != "" {
		kernel += "-" + metaPackage
		wanted = append([]string{metaPackage}, metaPackages...)
	}
	if err := once(kernel, func(tmp string) error { return fetchKernel(tmp, wanted) }); err != nil {
		return Image{}, fmt.Errorf("guest kernel: %w", err)
	}
	archive, key, err := initramfs(kernel, programs)
	if err != nil {
		return Image{}, fmt.Errorf("guest initramfs: %w", err)
	}
	image := Image{
		Kernel: filepath.Join(kernel, "vmlinux"),
		Initrd: filepath.Join(cache, "guest-initramfs-"+key, "initramfs.cpio"),
	}
	err = once(filepath.Dir(image.Initrd), func(tmp string) error {
		return os.WriteFile(filepath.Join(tmp, "initramfs.cpio"), archive, 0o644)
	})
	return image, err
}

// once fills another directory and renames it to dir, so that dir is always complete.
func once(dir string, fill func(tmp string) error) error {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}
