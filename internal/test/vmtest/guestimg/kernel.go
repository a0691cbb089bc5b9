package guestimg

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// metaPackages depend on the distribution's current kernel: Debian's small one for virtual
// machines, Ubuntu's, and Debian's for any machine.
var metaPackages = []string{"linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64"}

// fetchKernel downloads the package of the first kernel that the distribution has, unpacks it below
// dir without installing it, and puts vmlinux beside it.
func fetchKernel(dir string, metaPackages []string) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("guests are x86-64 and their kernel comes from this machine's packages; use an amd64 machine, not %s", runtime.GOARCH)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("the guests' kernel comes from Debian's or Ubuntu's packages, and there is no apt-get here; use one of these")
	}
	err := downloadKernel(dir, metaPackages)
	if err != nil && os.Geteuid() == 0 {
		// The package lists are missing or name a version that is gone.
		if out, uerr := exec.Command("apt-get", "update", "-qq").CombinedOutput(); uerr != nil {
			return fmt.Errorf("apt-get update: %w: %s", uerr, lastLine(out))
		}
		err = downloadKernel(dir, metaPackages)
	}
	if err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("the kernel package holds %d kernels in boot/, not one", len(images))
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	vmlinux, err := unpackBzImage(image)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(images[0]), err)
	}
	return os.WriteFile(filepath.Join(dir, "vmlinux"), vmlinux, 0o644)
}

func downloadKernel(dir string, metaPackages []string) error {
	packages, err := kernelPackages(metaPackages)
	if err != nil {
		return err
	}
	cmd := exec.Command("apt-get", append([]string{"download", "-qq"}, packages...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s; run apt-get update as root and try again", strings.Join(packages, " "), err, lastLine(out))
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if out, err := exec.Command("dpkg", "-x", deb, dir).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg -x %s: %w: %s", filepath.Base(deb), err, lastLine(out))
		}
		if err := os.Remove(deb); err != nil {
			return err
		}
	}
	return nil
}

var kernelDepends = regexp.MustCompile(`(?m)^\s*Depends: (linux-(?:image|modules)-[0-9]\S*)$`)

// kernelPackages returns the kernel package and, if the distribution has separate modules,
// theirs.
func kernelPackages(metaPackages []string) ([]string, error) {
	for _, meta := range metaPackages {
		image := dependsOn(meta)
		if len(image) == 0 {
			continue
		}
		packages := image[:1]
		for _, p := range dependsOn(packages[0]) {
			if strings.HasPrefix(p, "linux-modules-") {
				packages = append(packages, p)
			}
		}
		return packages, nil
	}
	return nil, fmt.Errorf("no kernel package is known (%s); run apt-get update as root and try again", strings.Join(metaPackages, ", "))
}

func dependsOn(pkg string) []string {
	out, err := exec.Command("apt-cache", "depends", pkg).Output()
	if err != nil {
		return nil // unknown to apt
	}
	var names []string
	for _, m := range kernelDepends.FindAllSubmatch(out, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// unpackBzImage extracts the ELF kernel from a bzImage (Documentation/arch/x86/boot.rst).
// QEMU starts it at its PVH entry in half the time, because the emulated CPU has nothing to
// decompress.
func unpackBzImage(image []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1
		magic         = 0x202
		version       = 0x206
		payloadOffset = 0x248
		payloadLength = 0x24c
		headerEnd     = 0x250
	)
	if len(image) < headerEnd || string(image[magic:magic+4]) != "HdrS" || binary.LittleEndian.Uint16(image[version:]) < 0x208 {
		return nil, errors.New("not a bzImage of boot protocol 2.08 or later")
	}
	start := (int(image[setupSects])+1)*512 + int(binary.LittleEndian.Uint32(image[payloadOffset:]))
	length := int(binary.LittleEndian.Uint32(image[payloadLength:]))
	if length < 8 || start+length > len(image) {
		return nil, errors.New("the compressed kernel lies outside the file")
	}
	payload := image[start : start+length]
	// The last four bytes are the length of the result. Gzip contains them in its own format;
	// after the other formats they are not part of the stream.
	want := int(binary.LittleEndian.Uint32(payload[length-4:]))
	stream := payload[:length-4]
	if bytes.HasPrefix(payload, []byte("\x1f\x8b")) {
		stream = payload
	}
	kernel, err := decompress(stream)
	if err != nil {
		return nil, err
	}
	if len(kernel) != want || !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, fmt.Errorf("what came out is no ELF file of %d bytes", want)
	}
	return kernel, nil
}

// decompress recognizes a format by its first bytes; unrecognized data is returned unchanged.
func decompress(b []byte) ([]byte, error) {
	var tool, pkg string
	switch {
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		tool, pkg = "xz", "xz-utils"
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		tool, pkg = "zstd", "zstd"
	case bytes.HasPrefix(b, []byte("\x02\x21\x4c\x18")):
		tool, pkg = "lz4", "lz4"
	default:
		return b, nil
	}
	cmd := exec.Command(tool, "-dc")
	cmd.Stdin = bytes.NewReader(b)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is missing; apt-get install %s", tool, pkg)
	}
	if err != nil {
		return nil, fmt.Errorf("%s -dc: %w: %s", tool, err, lastLine(stderr.Bytes()))
	}
	return out, nil
}

// moduleFiles finds the modules below dir, by their names as lsmod shows them.
func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ext, _ := strings.Cut(d.Name(), "."); strings.HasPrefix(ext, "ko") && !d.IsDir() {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return nil
	})
	return files, err
}

func lastLine(out []byte) string {
	s := strings.TrimSpace(string(out))
	return s[strings.LastIndexByte(s, '\n')+1:]
}
