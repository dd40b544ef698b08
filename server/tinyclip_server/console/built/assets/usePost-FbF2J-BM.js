const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["assets/SpecEditor-DEl8xwBq.js","assets/rolldown-runtime-WkwZ5CU-.js","assets/first-Bi7wMHkc.js","assets/first-DbMc04ZH.css","assets/browser-DF48D-rS.js","assets/fields-B_uknaxO.js"])))=>i.map(i=>d[i]);
import{n as e}from"./rolldown-runtime-WkwZ5CU-.js";import{$n as t,A as n,Bt as r,E as i,Ft as a,G as o,Gt as s,It as c,O as l,Pt as u,Wt as d,X as f,Zt as ee,_ as p,an as te,b as m,ct as ne,en as re,et as ie,j as h,mt as g,nn as ae,ot as _,rt as oe,tt as v,v as y,w as b,y as se,yn as ce}from"./first-Bi7wMHkc.js";import{C as le,O as ue,T as de,l as x,nt as fe,r as pe,tt as me,w as S}from"./shared-DhIQf6yF.js";import{t as he}from"./Skeleton-D4M97Tv-.js";import{a as ge,c as _e,i as ve,l as C,o as w,r as ye,s as T,t as E,u as D}from"./browser-DF48D-rS.js";import{r as be}from"./useJob-B7asp8eb.js";import{i as xe,o as Se,t as Ce}from"./fields-B_uknaxO.js";var O=e(t(),1);function we(e,t,n={leading:!1}){let[r,i]=(0,O.useState)(e),a=(0,O.useRef)(!1),o=(0,O.useRef)(null),s=(0,O.useRef)(!1),c=(0,O.useRef)(e);c.current=e;let l=(0,O.useCallback)(()=>{window.clearTimeout(o.current),o.current=null},[]),u=(0,O.useCallback)(()=>{l(),s.current=!1},[]),d=(0,O.useCallback)(()=>{o.current&&(u(),s.current=!1,i(c.current))},[]);return(0,O.useEffect)(()=>{a.current&&(l(),!s.current&&n.leading?(s.current=!0,i(e),o.current=window.setTimeout(()=>{s.current=!1},t)):o.current=window.setTimeout(()=>{s.current=!1,i(e)},t))},[e,n.leading,t]),(0,O.useEffect)(()=>(a.current=!0,u),[]),[r,u,{cancel:u,flush:d}]}var Te=v(`outline`,`folder`,`Folder`,[[`path`,{d:`M5 4h4l3 3h7a2 2 0 0 1 2 2v8a2 2 0 0 1 -2 2h-14a2 2 0 0 1 -2 -2v-11a2 2 0 0 1 2 -2`,key:`svg-0`}]]),Ee=v(`outline`,`restore`,`Restore`,[[`path`,{d:`M3.06 13a9 9 0 1 0 .49 -4.087`,key:`svg-0`}],[`path`,{d:`M3 4.001v5h5`,key:`svg-1`}],[`path`,{d:`M11 12a1 1 0 1 0 2 0a1 1 0 1 0 -2 0`,key:`svg-2`}]]),De=v(`outline`,`send`,`Send`,[[`path`,{d:`M10 14l11 -11`,key:`svg-0`}],[`path`,{d:`M21 3l-6.5 18a.55 .55 0 0 1 -1 0l-3.5 -7l-7 -3.5a.55 .55 0 0 1 0 -1l18 -6.5`,key:`svg-1`}]]),k=[`shards`,`dataset`,`samples`,`captions`,`image_key`,`caption_key`,`languages`,`distinct_key`,`holdout`];function A(e,t){let n=E(e),r=n.getIn([`data`,`train`]);if(w(r)&&r.flow!==!0&&r.items.length>0)return Oe(e,r,`dataset: ${t}`);if(w(r))for(let e of k)r.delete(e);return n.setIn([`data`,`train`,`dataset`],t),n.toString({lineWidth:130})}function Oe(e,t,n){let r=t.items.filter(e=>C(e.key)&&k.includes(String(e.key.value))),i=` `.repeat(ke(e,M(t.items[0]))),a=e;for(let t of r.toReversed()){let[n,r]=j(e,t);a=a.slice(0,n)+a.slice(r)}let o=j(e,r[0]??t.items[0])[0];return`${a.slice(0,o)}${i}${n}\n${a.slice(o)}`}function j(e,t){let n=e.lastIndexOf(`
`,M(t)-1)+1,r=t.value?.range?.[1]??t.key.range[1],i=n+e.slice(n,r).trimEnd().length,a=e.indexOf(`
`,i);return[n,a===-1?e.length:a+1]}function M(e){return e.key.range[0]}function ke(e,t){return t-(e.lastIndexOf(`
`,t-1)+1)}function Ae(e,t,n){let r=E(e),i=r.getIn(t,!0);return C(i)&&i.range!=null?e.slice(0,i.range[0])+n+e.slice(i.range[1]):(r.setIn(t,n),r.toString({lineWidth:130}))}var N=`/path/to/TinyCLIP/examples`,P=[{text:N,label:`Folder of the examples of a clone of TinyCLIP`,example:`/home/you/TinyCLIP/examples`},{text:`/path/to/photos`,label:`Folder of the photos`,example:`/data/photos`},{text:`s3://YOUR-BUCKET`,label:`Bucket or folder of the shards`,example:`s3://my-bucket`}];function F(e,t,n){return e.replaceAll(t,()=>n.trim().replace(/\/+$/,``))}var je=100;function I(e){let t=new ye(e);return ve(t,{Collection(e,t,n){let r=n.length<=1,i=D(t)&&t.items.some(w);!r&&!i&&L(t)&&(t.flow=!0)}}),t.toString({lineWidth:130,flowCollectionPadding:!1})}function L(e){return ge(e)?(w(e)?e.items.map(e=>e.value):e.items).every(e=>e===null||C(e)||L(e))&&JSON.stringify(e.toJSON()).length<=je:C(e)}var R=`tinyclip.draft.`;function z(e){try{return sessionStorage.getItem(R+e)}catch{return null}}function B(e,t){try{t===null?sessionStorage.removeItem(R+e):sessionStorage.setItem(R+e,t)}catch{}}function V(e,t,n){let r=Me(t),i=r===null?e:F(e,N,r),a=n[0];return P.some(e=>i.includes(`shards: ${e.text}`))&&a!==void 0?A(i,`${a}@latest`):i}function Me(e){for(let{name:t,spec:n}of e){let e=t.startsWith(`emoji/`)?n.match(/(?:\s|:|["'])(\/[^\n"']*)\/emoji\/data\//)?.[1]:void 0;if(e!==void 0)return e}return null}var H=[{name:`half`,label:`Half`,description:`Half of the teacher's weights, 1000 steps. The example with emoji: minutes on two CPU cores.`,text:`# Half of a CLIP, from the emoji of a clone of TinyCLIP: a student with half of the weights in its teacher's blocks.
#
# The stage cuts the student out of the teacher: the attention heads, MLP units and channels that the embeddings depend on most,
# fitted to the teacher (weight inheritance). Then it trains the student to have the teacher's embeddings.
name: emoji-half

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # or hf-hub:ORG/NAME, registry:NAME@ALIAS, an architecture

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: half
    inherit: auto                    # finds the sizes; with inherit: manual and student: {…} they are yours
    prune: {target_sparsity: 0.5}
    train: {steps: 1000}

objective: {feature_mimicry: 1}      # add affinity: 1 to mimic the similarities of images and texts as well
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: 5.0e-4, warmup_steps: 50}
batch_size: 64
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 200, keep: 2}
seed: 0
`},{name:`quarter`,label:`Quarter`,description:`A quarter of the teacher's weights, selected by importance, 400 steps.`,text:`# A quarter of a CLIP whose shape follows from its teacher: 25% of the weights in the blocks of a ViT teacher.
#
# Before the first step, the channels, heads and MLP units that the embeddings depend on least are removed, counted per
# parameter, and what remains is fitted to the teacher. Sizes are those of attention and MLPs, the parts of a model's blocks;
# embeddings shrink with the channels.
name: emoji-quarter

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # a transformer: a ResNet has no heads

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: quarter
    inherit: auto                    # finds the sizes; with inherit: manual and student: {…} they are yours
    prune: {target_sparsity: 0.75}   
    train: {steps: 400}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: 1.0e-3, warmup_steps: 20}
batch_size: 128
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 50, keep: 2}
seed: 0
`},{name:`automatic`,label:`Automatic`,description:`Shape and learning rate are found while the student trains.`,text:`# A quarter of a CLIP whose shape and learning rate are found: masks are learned while the weights are frozen, until the prune step.
#
# Then everything that the masks close is removed, and what remains is trained. Sizes are those of attention and MLPs, the parts of a model's
# blocks; embeddings shrink with the channels. The learning rate is the largest one that keeps what was inherited.
name: emoji-automatic

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # a transformer: a ResNet has no heads

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: quarter
    inherit: auto
    prune: {target_sparsity: 0.75, search: frozen, prune_step: 320, sparsity_warmup: 100}    # search: importance needs no masks
    train: {steps: 600}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: auto, warmup_steps: 20}      # tested before the first step of the stage
batch_size: 128
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 50, keep: 2}
seed: 0
`},{name:`photos`,label:`Photos`,description:`Photos with captions in a WebDataset of yours, and sizes that you choose.`,text:`# Half of a model of photos: any WebDataset of KEY.jpg, KEY.txt and KEY.json, here of 100 classes.
#
# The teacher is a registered model: train one from scratch with examples/caltech101/teacher.yaml, or import one.
name: photos-half

teacher:
  model: registry:caltech101-teacher@latest      # also hf-hub:ORG/NAME, local-dir:PATH or an architecture

data:
  train:
    shards: /path/to/photos/train-*.tar
    image_key: [jpg]
    distinct_key: json.label         # captions of one class are alike: its images must not be each other's negatives
    augment: {crop_scale: [0.5, 1.0], horizontal_flip: 0.5, color_jitter: 0.3}
  shuffle: 5000

evaluation:
  tasks:
    - name: photos
      kind: zero_shot
      shards: /path/to/photos/val-*.tar
      image_key: [jpg]
      classes: /path/to/photos/classes.txt      # one class a line
      templates: ["a photo of a {}."]
      label_key: json.label

stages:
  - name: half
    inherit: manual
    student:
      image: {width: 24}
      text: {layers: 2, width: 128, heads: 2}
    train: {epochs: 12}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}
optimizer: {lr: 1.0e-3, warmup_steps: 20}
batch_size: 64
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 100, keep: 2}
seed: 0
`},{name:`published`,label:`Published`,description:`The two stages of the paper for ViT-B/32: 400 million pairs, 32 GPUs.`,text:`# Half of a ViT-B/32 by manual inheritance, in two stages: 100 -> 75 -> 50%, as in the published scripts.
# Published: 62.4% (61M) and 59.8% (40M) top-1 on ImageNet, zero-shot.
name: tinyclip-vit-40m-32

teacher: {model: ViT-B-32, pretrained: laion2b_e16}    # of both stages: always the original

data:
  train:
    shards: s3://YOUR-BUCKET/laion400m/{00000..41455}.tar
    samples: 400000000              # the number in the scripts; fewer can be downloaded today
    image_key: [jpg]

stages:
  - name: three-quarters
    select: leading
    student: {preset: TinyCLIP-ViT-61M-32-Text-29M}     # text blocks: the first 9 of 12
    train: {epochs: 6}
  - name: half
    select: leading
    student: {preset: TinyCLIP-ViT-40M-32-Text-19M}     # of the previous student, the first 6 of 9
    train: {epochs: 6}

objective: {affinity: 1}
temperature: {teacher: 50, student: 50}
optimizer: {lr: 1e-4, weight_decay: 0.2, betas: [0.9, 0.98], eps: 1e-6, warmup_steps: 2000, clip_norm: 5}
batch_size: 32768                   # 4 nodes of 8 GPUs, 1024 pairs each
precision: fp16                     # as published; bf16 needs no loss scaling
resources: {workers: 32, device: cuda, cpus_per_worker: 8}
checkpoint: {every_steps: 1000}
seed: 0
`}],U=200;function W(){return g({queryKey:[`names`,`datasets`],queryFn:async()=>(await y(p.GET(`/v1/datasets`,{params:{query:{page_size:U}}}))).items.filter(({latest:e})=>e!=null).map(({name:e})=>e)})}function G(){return g({queryKey:[`names`,`models`],queryFn:async()=>(await y(p.GET(`/v1/models`,{params:{query:{page_size:U}}}))).items.map(({name:e})=>e)})}function Ne(e=`JobSpec`){let t=g({queryKey:[`schema`,e],queryFn:()=>y(p.GET(`/v1/schemas/{document}`,{params:{path:{document:e}}})),staleTime:1/0}),n=W().data,r=G().data;return(0,O.useMemo)(()=>({schema:t.data??null,values:Pe(n??[],r??[])}),[t.data,n,r])}function Pe(e,t){return n=>{let r=n.filter(e=>typeof e==`string`).join(`.`).replace(/^spec\./,``);if(r===`data.train.dataset`)return e.map(e=>({text:`${e}@latest`,description:`A registered data set`}));if(r===`teacher.model`||r===`teachers.model`){let e=[[`hf-hub:`,`A model of the Hugging Face Hub: hf-hub:ORG/NAME`],[`local-dir:`,`A folder or URI with a model of open_clip: local-dir:PATH`]];return[...t.map(e=>({text:`registry:${e}@latest`,description:`A registered model`})),...e.map(([e,t])=>({text:e,description:t}))]}return[]}}function Fe(){return g({queryKey:[`examples`],queryFn:async()=>(await y(p.GET(`/v1/examples`))).items,staleTime:6e4})}function Ie({template:e,from:t,dataset:n}){let r=Le(t),i=Re(e,n);return t===void 0?i:r}function Le(e){let t=g({...be(e??``),enabled:e!==void 0}),n=`# The spec of job ${e}, to change and submit again.\n`,r=t.data===void 0?void 0:n+I(t.data.submitted),i=`job:${e}`;return{id:i,original:r,draft:z(i),error:t.error}}function Re(e,t){let n=W(),r=Fe(),i=H.find(t=>t.name===e),a=r.data?.find(t=>t.name===e),o=i??H[0],s=`template:${a?.name??o.name}${t===void 0?``:` on ${t}`}`,c=r.isPending||n.isPending,l=c?void 0:a?.spec??V(o.text,r.data??[],n.data??[]);return{id:s,original:l===void 0||t===void 0?l:A(l,t),draft:c?null:z(s),error:null}}var K=ce(),ze=4<<20;function Be({onText:e,children:t}){let[n,r]=(0,O.useState)(!1);return(0,K.jsx)(te,{onDropCapture:t=>{r(!1);let n=t.dataTransfer.files[0];n!==void 0&&(t.preventDefault(),t.stopPropagation(),Ve(n,e))},onDragOverCapture:e=>{e.dataTransfer.types.includes(`Files`)&&(e.preventDefault(),r(!0))},onDragLeave:()=>r(!1),style:{outline:n?`2px dashed var(--mantine-primary-color-filled)`:`none`,borderRadius:`var(--mantine-radius-md)`},children:t})}async function Ve(e,t){if(e.size>ze)return x(`Loading the file`,Error(`${e.name} is larger than 4 MB`));try{t(new TextDecoder(`utf-8`,{fatal:!0}).decode(await e.arrayBuffer()))}catch{x(`Loading the file`,Error(`${e.name} is not a text in UTF-8`))}}function He(e){return e===``||e===`/`?[]:e.replace(/^\//,``).split(`/`).map(e=>e.replace(/~1/g,`/`).replace(/~0/g,`~`))}function Ue(e,t,n){let r=e.contents,i=Ke(t,0,t.length);for(let e of n){let n=We(r,String(e));if(n===null)break;r=n.value,i=n.place(t)??i}return i}function We(e,t){if(w(e)){let n=e.items.find(e=>C(e.key)&&String(e.key.value)===t);return n===void 0?null:{value:n.value,place:e=>Ge(n,e)}}if(D(e)){let n=e.items[Number(t)];return n===void 0?null:{value:n,place:e=>q(n,e)}}return null}function Ge(e,t){let n=q(e.value,t),r=C(e.value)||T(e.value)&&e.value.flow===!0;return n!==null&&r&&n.to>n.from?n:q(e.key,t)}function q(e,t){let n=T(e)?e.range:_e(e)?e.key?.range:null;return n==null?null:Ke(t,n[0],n[1])}function Ke(e,t,n){let r=e.indexOf(`
`,t);return{from:t,to:r===-1||r>n?n:r}}function qe(e,t,n){let r=n.slice(0,-1).reduce((e,t)=>e===null?null:We(e,String(t))?.value??null,e.contents);if(!w(r))return null;let i=r.items.find(e=>C(e.key)&&String(e.key.value)===String(n.at(-1)));return i===void 0?null:q(i.key,t)}function Je(e,t){let n=[];return J(e,[e],t,[],n),n}function J(e,t,n,r,i){let a=t.flatMap(t=>xe(e,t,n));if(Array.isArray(n))n.forEach((t,n)=>J(e,a.flatMap(e=>e.prefixItems?.[n]??e.items??[]),t,[...r,n],i));else if(typeof n==`object`&&n)for(let[t,o]of Object.entries(n)){let n=a.flatMap(e=>e.properties?.[t]??[]);n.length>0?J(e,n,o,[...r,t],i):a.some(Se)&&!a.some(Ye)&&i.push(Xe(e,a,[...r,t],t))}}function Ye(e){return(e.type===`object`||e.type===void 0)&&e.additionalProperties!==!1&&e.enum===void 0&&e.const===void 0}function Xe(e,t,n,r){let i=Ce(e,t).map(e=>e.name),a=Ze(r,i);return{path:n,suggestion:a,message:`unknown field ${r}; ${a===null?`known here: ${i.sort().join(`, `)}`:`did you mean ${a}?`}`}}function Ze(e,t){let n=e=>e.toLowerCase().replace(/[-_\s]/g,``),r=null;for(let i of t){let t=Qe(n(e),n(i));t<=Math.max(1,Math.floor(i.length/3))&&(r===null||t<r[0])&&(r=[t,i])}return r?.[1]??null}function Qe(e,t){let n=Array.from({length:t.length+1},(e,t)=>t);for(let r=1;r<=e.length;r+=1){let i=[r];for(let a=1;a<=t.length;a+=1)i.push(Math.min(n[a]+1,i[a-1]+1,n[a-1]+Number(e[r-1]!==t[a-1])));n=i}return n[t.length]}function $e(e,{document:t,value:n,mistakes:r},i,a){if(n===void 0)return r.map(e=>({...e,where:``}));let o=i===null?[]:Je(i,n),s=new Set(o.map(({path:e})=>e.join(`.`))),c=o.map(({path:n,message:r})=>({...qe(t,e,n)??Ue(t,e,n),where:n.join(`.`),message:r,severity:`error`}));for(let{pointer:n,message:r}of a instanceof _?a.problem.errors??[]:[]){let i=He(n);s.has(i.join(`.`))||c.push({...Ue(t,e,i),where:i.join(`.`),message:f(r),severity:`error`})}return c.sort((e,t)=>e.from-t.from)}function et(e,t){return e.slice(0,t).split(`
`).length}var Y=50;function tt({mistakes:e,text:t,onJump:n}){return e.length===0?null:(0,K.jsxs)(me,{withBorder:!0,p:`sm`,mt:`sm`,component:`section`,"aria-labelledby":`mistakes-title`,children:[(0,K.jsx)(u,{order:2,size:`h5`,id:`mistakes-title`,mb:4,children:e.length===1?`1 mistake`:`${e.length} mistakes`}),(0,K.jsx)(c,{gap:2,component:`ol`,m:0,p:0,style:{listStyle:`none`},children:e.slice(0,Y).map((e,r)=>(0,K.jsx)(`li`,{children:(0,K.jsx)(ae,{onClick:()=>n(e),w:`100%`,py:2,children:(0,K.jsxs)(d,{size:`sm`,className:`user-text`,children:[(0,K.jsxs)(d,{span:!0,fw:600,c:`light-dark(var(--mantine-color-red-9), var(--mantine-color-red-4))`,children:[`Line `,et(t,e.from)]}),` `,e.where!==``&&(0,K.jsxs)(d,{span:!0,ff:`monospace`,children:[f(e.where,120),`:`,` `]}),f(e.message)]})})},r))}),e.length>Y&&(0,K.jsxs)(d,{size:`sm`,children:[`and `,e.length-Y,` more`]})]})}var nt=(0,O.lazy)(()=>oe(()=>import(`./SpecEditor-DEl8xwBq.js`),__vite__mapDeps([0,1,2,3,4,5]))),rt=`editor-keys`;function it({editor:e,label:t,text:n,onChange:r,onReplace:i,onSubmit:a,mistakes:o,knowledge:s}){return(0,K.jsxs)(K.Fragment,{children:[(0,K.jsx)(Be,{onText:i,children:(0,K.jsx)(me,{withBorder:!0,h:`clamp(320px, calc(100vh - 330px), 900px)`,style:{overflow:`hidden`},children:(0,K.jsx)(O.Suspense,{fallback:(0,K.jsx)(he,{h:`100%`}),children:(0,K.jsx)(nt,{ref:e,label:t,initialText:n,onChange:r,onSubmit:a,mistakes:o,knowledge:s,describedBy:rt})})})}),(0,K.jsx)(d,{id:rt,size:`xs`,c:`dimmed`,mt:4,children:`Ctrl+Space completes, Ctrl+Enter submits, Ctrl+Z takes back (on a Mac, Cmd for the last two). Tab indents: to leave the editor press Escape, then Tab. Drop a YAML or JSON file to load it.`}),(0,K.jsx)(tt,{mistakes:o,text:n,onJump:t=>e.current?.jump(t)})]})}function at({places:e,text:t,onReplace:n}){return e.length===0?null:(0,K.jsx)(s,{color:`blue`,variant:`light`,icon:(0,K.jsx)(Te,{}),title:`This template needs addresses of yours`,children:(0,K.jsxs)(c,{gap:`xs`,children:[e.map(e=>(0,K.jsx)(ot,{place:e,onFill:r=>n(F(t,e.text,r))},e.text)),(0,K.jsx)(d,{size:`sm`,c:`var(--mantine-color-text)`,children:`The server and its workers read them, not the browser. A registered data set needs no address.`})]})})}function ot({place:e,onFill:t}){let[n,i]=(0,O.useState)(``);return(0,K.jsx)(`form`,{onSubmit:e=>{e.preventDefault(),n.trim()!==``&&t(n)},children:(0,K.jsxs)(ee,{gap:`xs`,align:`flex-end`,children:[(0,K.jsx)(a,{label:e.label,placeholder:e.example,value:n,onChange:e=>i(e.currentTarget.value),w:`min(360px, 64vw)`}),(0,K.jsx)(r,{type:`submit`,variant:`default`,disabled:n.trim()===``,children:`Fill in`})]})})}function st({image_params:e,text_params_without_embedding:t}){return e+t}function X(e,t,n){return t==null||n(t)===0?null:n(e)/n(t)}function ct({plan:e}){let{teacher:t,stages:n}=e,r=[{label:`Image parameters`,of:({image_params:e})=>b(e)},{label:`Text parameters`,of:({text_params_without_embedding:e})=>b(e)},{label:`MACs of a pair`,of:({macs:e})=>b(e)}];return(0,K.jsxs)(pe,{columns:[`Model`,t!==null&&`Teacher`,...n.map(({name:e})=>({head:f(e,40),className:`user-text`}))],withRowBorders:!1,verticalSpacing:4,horizontalSpacing:`xs`,fz:`sm`,style:{whiteSpace:`nowrap`},children:[r.map(({label:e,of:r})=>(0,K.jsx)(Z,{label:e,teacher:t===null?null:r(t),stages:n,of:e=>`${e.student.estimated?`~`:``}${r(e.student)}`},e)),t!==null&&(0,K.jsx)(Z,{label:`Share of parameters`,teacher:`100 %`,stages:n,of:e=>(0,K.jsx)(lt,{value:X(e.student,t,st)})}),t!==null&&(0,K.jsx)(Z,{label:`Share of MACs`,teacher:`100 %`,stages:n,of:e=>(0,K.jsx)(lt,{value:X(e.student,t,({macs:e})=>e)})}),(0,K.jsx)(Z,{label:`Inherits`,teacher:t===null?null:``,stages:n,of:ut}),(0,K.jsx)(Z,{label:`Steps`,teacher:t===null?null:``,stages:n,of:e=>l(e.steps)}),(0,K.jsx)(Z,{label:`Learning rate`,teacher:t===null?null:``,stages:n,of:e=>typeof e.lr==`number`?h(e.lr):e.lr===`auto`?`is tested`:`–`}),(0,K.jsx)(Z,{label:`Device time`,teacher:t===null?null:``,stages:n,of:e=>i(Math.max(1,e.device_hours*3600))})]})}function Z({label:e,teacher:t,stages:n,of:r}){return(0,K.jsxs)(S.Tr,{children:[(0,K.jsx)(S.Th,{scope:`row`,fw:400,children:e}),t!==null&&(0,K.jsx)(S.Td,{children:t}),n.map(e=>(0,K.jsx)(S.Td,{children:r(e)},e.index))]})}function lt({value:e}){return e===null?`–`:(0,K.jsxs)(K.Fragment,{children:[(0,K.jsx)(d,{span:!0,size:`sm`,children:n(e,0)}),(0,K.jsx)(ue,{value:100*Math.min(1,e),size:4,mt:2,w:72,"aria-hidden":!0})]})}function ut({inherit:e,select:t,search:n}){if(e===`none`)return`nothing`;let r=e===`auto`?n:t;return r==null?e:`${e}, ${r}`}function dt(e){return(0,K.jsx)(ft,{...e,hint:`A valid spec shows its students, steps and hours here.`,children:e=>(0,K.jsx)(mt,{plan:e})})}function ft({planned:e,hasMistakes:t,mayWrite:n,hint:r,children:i}){let{plan:a,isOutdated:s,isPlanning:l,isBusy:f}=e;return(0,K.jsxs)(c,{gap:`sm`,component:`section`,"aria-labelledby":`plan-title`,children:[(0,K.jsxs)(ee,{justify:`space-between`,mih:28,children:[(0,K.jsx)(u,{order:2,size:`h4`,id:`plan-title`,children:`Plan`}),(0,K.jsxs)(d,{size:`sm`,c:`dimmed`,role:`status`,children:[l&&(0,K.jsx)(re,{size:12,mr:6}),pt(e,t)]})]}),e.error!==null&&!t&&(0,K.jsx)(o,{error:e.error}),a===null?(0,K.jsxs)(d,{c:`dimmed`,size:`sm`,children:[!n&&`Your token has no scope write, which plans and submits jobs: ask an administrator of the project for one.`,n&&(f||l?`The server reads the teacher and the shards.`:r)]}):(0,K.jsx)(te,{style:s?{filter:`grayscale(1) opacity(0.6)`}:void 0,children:i(a)})]})}function pt({isPlanning:e,isBusy:t,isOutdated:n,plan:r},i){return t?`The server is busy; asking again soon`:e?`Planning`:i?r===null?`Mistakes in the spec`:`Of the last valid text`:n?``:`Up to date`}function mt({plan:e}){return(0,K.jsxs)(c,{gap:`sm`,children:[(0,K.jsx)(gt,{warnings:e.warnings??[]}),(0,K.jsxs)(de,{cols:{base:2,xs:4,md:2,xl:4},spacing:`xs`,children:[(0,K.jsx)(Q,{label:`Steps`,value:l(e.steps)}),(0,K.jsx)(Q,{label:e.device===`cuda`?`GPU-hours`:`CPU time`,value:ht(e)}),(0,K.jsx)(Q,{label:`Pairs in an epoch`,value:b(e.samples_per_epoch)}),(0,K.jsx)(Q,{label:`Batch size`,value:l(e.spec.batch_size)})]}),(e.saved_device_hours??0)>0&&(0,K.jsxs)(d,{size:`sm`,children:[`The reinforcement saves `,h(e.saved_device_hours),` device-hours of the teacher.`]}),(0,K.jsx)(fe,{type:`auto`,viewportProps:{tabIndex:0,role:`region`,"aria-label":`Students`},children:(0,K.jsx)(ct,{plan:e})}),(0,K.jsxs)(d,{size:`xs`,c:`dimmed`,children:[`Parameters are without the token embedding.`,e.stages.some(e=>e.student.estimated)&&` ~ is an estimate: the shape is found when the job runs.`]})]})}function ht({device_hours:e,device:t}){return t===`cuda`?`${h(e)} h`:`about ${i(Math.max(1,e*3600))}`}function Q({label:e,value:t}){return(0,K.jsxs)(`div`,{children:[(0,K.jsx)(d,{size:`xs`,c:`dimmed`,children:e}),(0,K.jsx)(d,{fw:600,children:t})]})}function gt({warnings:e}){return e.length===0?null:(0,K.jsx)(s,{color:`orange`,variant:`light`,icon:(0,K.jsx)(ie,{}),title:e.length===1?`A warning`:`${e.length} warnings`,children:(0,K.jsx)(c,{gap:4,component:`ul`,m:0,pl:`md`,children:e.map(e=>(0,K.jsx)(d,{component:`li`,size:`sm`,className:`user-text`,c:`var(--mantine-color-text)`,children:f(e)},e))})})}var _t=500,vt=20,yt=3e4;function bt(e,t=`/v1/jobs`){let[n]=we(e,_t),r=g({queryKey:[`plan`,t,n],queryFn:({signal:e})=>xt(t,n,e),enabled:n!==null&&n===e,retry:(e,t)=>(ne(t)||$(t))&&e<vt,retryDelay:(e,t)=>t instanceof _&&t.retryAfterSeconds!==null?1e3*t.retryAfterSeconds:Math.min(1e3*2**e,8e3),staleTime:yt,gcTime:yt,refetchOnWindowFocus:!1}),i=(0,O.useRef)(null);r.data!==void 0&&(i.current=r.data);let a=e!==null&&n===e,o=(0,O.useRef)(null);return a&&!r.isFetching&&(o.current=r.error),{plan:i.current,isOutdated:!a||r.data===void 0,isPlanning:e!==null&&(!a||r.isFetching),error:o.current,isBusy:St(r.isFetching&&$(r.failureReason))}}async function xt(e,t,n){return await(await m(`${e}?validate_only=true`,{method:`POST`,body:t,headers:{"Content-Type":`application/json`},signal:n})).json()}function $(e){return e instanceof _&&e.problem.status===429}function St(e){let[t,n]=(0,O.useState)(!1);return(0,O.useEffect)(()=>{if(!e)return n(!1);let t=setTimeout(()=>n(!0),300);return()=>clearTimeout(t)},[e]),t}function Ct(e,t,n){let r=(0,O.useRef)({text:``,key:``});return le({mutationFn:async t=>{r.current.text!==t&&(r.current={text:t,key:se()});let n={"Content-Type":`application/json`,"Idempotency-Key":r.current.key};return await(await m(e,{method:`POST`,body:t,headers:n})).json()},onSuccess:e=>{B(t,null),r.current={text:``,key:``},n(e)},onError:e=>x(`Submission`,e)})}export{Ae as C,A as S,Ee as T,V as _,dt as a,I as b,at as c,Fe as d,Ie as f,H as g,G as h,ft as i,it as l,Ne as m,bt as n,gt as o,W as p,Q as r,ht as s,Ct as t,$e as u,z as v,De as w,P as x,B as y};